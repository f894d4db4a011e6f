"""Test certificates, made anew for each run. They sign themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Iterable


def write(stem: Path, names: Iterable[str], days: int = 2) -> None:
    """stem.crt and stem.key, good for DNS names and addresses."""
    kinds = {name: "IP" if name.replace(".", "").isdigit() else "DNS" for name in names}
    alternatives = ",".join(f"{kind}:{name}" for name, kind in kinds.items())
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", str(days), "-subj", "/CN=test site", "-addext", "subjectAltName=" + alternatives,
                    "-keyout", f"{stem}.key", "-out", f"{stem}.crt"], check=True, capture_output=True)
