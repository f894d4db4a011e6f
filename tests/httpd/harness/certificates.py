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


# What `openssl ca` wants to know to sign for times of the past.
_AUTHORITY = """[ca]
default_ca = here
[here]
new_certs_dir = {directory}
database = {stem}.index
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = {alternatives}
"""


def write_expired(stem: Path, address: str) -> None:
    """stem.crt and stem.key for an IP address, good until the second day of 2020."""
    Path(f"{stem}.index").touch()
    Path(f"{stem}.cnf").write_text(_AUTHORITY.format(directory=stem.parent, stem=stem, alternatives=f"IP:{address}"))
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=test site", "-keyout", f"{stem}.key", "-out", f"{stem}.csr"], check=True, capture_output=True)
    subprocess.run(["openssl", "ca", "-batch", "-selfsign", "-notext", "-config", f"{stem}.cnf",
                    "-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-keyfile", f"{stem}.key",
                    "-in", f"{stem}.csr", "-out", f"{stem}.crt"], check=True, capture_output=True)
