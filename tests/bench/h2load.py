"""HTTP/2 in turns by h2load, as wrk loads HTTP/1.1."""

from __future__ import annotations

import re

from wrk import CONNECTIONS, Contender, Load, Round

# As many requests under way as with wrk, over as many connections as browsers.
STREAMS = 4


class H2Load(Load):
    """In clear text, since what TLS costs is the same for all; a contender's first cookie alone."""

    program = "h2load"

    def send(self, contender: Contender) -> Round:
        """Errors: RuntimeError when requests fail."""
        headers = dict(contender.headers) | ({"Cookie": contender.cookies[0]} if contender.cookies else {})
        output = self.output_of(contender, [
            "h2load", "-t1", f"-c{CONNECTIONS // STREAMS}", f"-m{STREAMS}", f"-D{self.seconds}",
            *(f"--header={name}: {value}" for name, value in headers.items()),
            f"--connect-to=127.0.0.1:{contender.httpd.port}", contender.httpd.url(contender.path)])
        rate = re.search(r"^finished in .*, ([\d.]+) req/s", output, re.MULTILINE)
        count = re.search(rf"^status codes:.* (\d+) {contender.status // 100}xx", output, re.MULTILINE)
        done = re.search(r"^requests:.* (\d+) done, .* (\d+) failed", output, re.MULTILINE)
        if not rate or not count or not done or int(done.group(2)) or count.group(1) != done.group(1):
            self.fail(contender, output)
        return Round(int(count.group(1)), float(rate.group(1)))


# What httpd needs for it.
MODULE = "http2"
PROTOCOLS = "Protocols h2c http/1.1\n"
