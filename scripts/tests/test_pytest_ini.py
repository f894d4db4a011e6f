"""pytest.ini holds for all of them: a test fails when one of its threads dies."""

import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).parents[2]
DYING = """
import threading

def test_it():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
"""


def test_a_thread_that_dies_fails_its_test(tmp_path):
    (tmp_path / "test_it.py").write_text(DYING)
    done = subprocess.run([sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-c", str(TOP / "pytest.ini"),
                           str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stdout, done.stdout
