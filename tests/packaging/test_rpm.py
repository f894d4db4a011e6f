"""The RPM spec, with Debian's rpm. It proves that rpmbuild reads the spec, and that its sections build, install and list this
source with this machine's httpd. It does not prove the names of Fedora's packages (BuildRequires are not looked at) nor the
values of Fedora's macros."""

from __future__ import annotations

import os
import re

import pytest

from machine import run
from packages import TOP, Source

SPEC = TOP / "packaging/rpm/mod_auth_bitbucket.spec"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The packages: what each holds."""
    top = tmp_path_factory.mktemp("rpm")
    (top / "SOURCES").mkdir()
    version = re.search(r"(?m)^Version:\s*(\S+)", SPEC.read_text())[1]
    name = f"mod_auth_bitbucket-{version}"
    Source(top).directory.rename(top / name)
    run("tar", "-C", top, "-cJf", top / "SOURCES" / (name + ".tar.xz"), name, env={**os.environ, "XZ_OPT": "-0"})
    here = [f"_topdir {top}", "_httpd_apxs /usr/bin/apxs", "debug_package %{nil}", "optflags -O0"]
    run("rpmbuild", "-bb", "--nodeps", "--without", "check", *(word for one in here for word in ("--define", one)), SPEC)
    return {re.match(r"(.*?)-\d", path.name)[1]: run("rpm", "-qplv", path) for path in top.glob("RPMS/*/*.rpm")}


def test_spec_is_of_this_version():
    version = re.search(r"AC_INIT\(\[mod_auth_bitbucket\], \[(.*?)\]", (TOP / "configure.ac").read_text())[1]
    assert run("rpmspec", "-q", "--srpm", "--qf", "%{version}", SPEC).endswith(version)


def test_packages(built):
    assert set(built) == {"mod_auth_bitbucket", "mod_auth_bitbucket-devel"}
    module = built["mod_auth_bitbucket"]
    for mode, name in (("-rwxr-xr-x", "modules/mod_auth_bitbucket.so"), ("-rw-r--r--", "conf.modules.d/10-auth_bitbucket.conf"),
                       ("-rw-r--r--", "conf.d/auth_bitbucket.conf"), ("drwx------", "/var/lib/mod_auth_bitbucket"),
                       ("-rw-r--r--", "docs/directives.md")):
        assert re.search(rf"(?m)^{mode} .* root .*{re.escape(name)}$", module), module
    assert "include/httpd/mod_auth_bitbucket.h" in built["mod_auth_bitbucket-devel"]
