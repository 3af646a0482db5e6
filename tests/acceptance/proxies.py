"""Real proxies with TLS before a turbod, run from the very files of docs/proxy."""

import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio_websocket

from tests.acceptance.process import REPOSITORY, free_port

NAME = "turbod.example.com"
START_SECONDS = 10.0
KINDS = ("nginx", "caddy")
# Around the site's file: what Debian's own nginx.conf says, in a folder of the test's.
NGINX = """
daemon off; worker_processes 1; pid FOLDER/pid; error_log FOLDER/errors; USER
events { worker_connections 512; }
http {
    access_log off;
    gzip on;
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/f; uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;
    include FOLDER/site;
}
"""
CADDY = """{
    admin 127.0.0.1:ADMIN
    http_port PLAIN
    storage file_system FOLDER/storage
}
"""


class Answer(NamedTuple):
    """What curl got; status 0 where nothing came."""

    status: int
    version: str
    body: bytes


class Proxy:
    """nginx or Caddy on 127.0.0.1, whose clients come from any address of 127.0.0.0/8.

    Attributes:
        port: of https and wss.
    """

    def __init__(self, kind: str, folder: Path, upstream: int, changes: Mapping[str, str]) -> None:
        for program in (kind, "curl", "openssl"):
            if shutil.which(program) is None:
                pytest.skip(f"no {program} here")
        self.kind = kind
        self.port, self._plain_port, self._admin_port = free_port(), free_port(), free_port()
        self._folder, self._upstream = folder, upstream
        folder.mkdir()
        self.certificate = _certificate(folder)
        self.write(changes)

    def write(self, changes: Mapping[str, str]) -> None:
        """Write the example's file with ports and paths of the test, and these changes."""
        nginx = self.kind == "nginx"
        text = (REPOSITORY / "docs/proxy" / ("nginx.conf" if nginx else "Caddyfile")).read_text()
        for old, new in ((self._nginx() if nginx else self._caddy()) | dict(changes)).items():
            assert old in text, old
            text = text.replace(old, new)
        if nginx:
            (self._folder / "site").write_text(text)
            user = "user root;" if os.geteuid() == 0 else ""
            around = NGINX.replace("USER", user)
        else:
            around = CADDY.replace("ADMIN", str(self._admin_port))
            around = around.replace("PLAIN", str(self._plain_port)) + text
        (self._folder / "main").write_text(around.replace("FOLDER", str(self._folder)))

    def _nginx(self) -> dict[str, str]:
        live = f"/etc/letsencrypt/live/{NAME}"
        return {
            "listen [::]:80;": "",
            "listen [::]:443 ssl;": "",
            "listen 80;": f"listen 127.0.0.1:{self._plain_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            f"{live}/fullchain.pem": str(self.certificate),
            f"{live}/privkey.pem": str(self._folder / "key.pem"),
            "127.0.0.1:8080": f"127.0.0.1:{self._upstream}",
        }

    def _caddy(self) -> dict[str, str]:
        tls = f"tls {self.certificate} {self._folder / 'key.pem'}"
        return {
            f"{NAME} {{": f"{NAME}:{self.port} {{\n\tbind 127.0.0.1\n\t{tls}",
            "127.0.0.1:8080": f"127.0.0.1:{self._upstream}",
        }

    @property
    def _command(self) -> list[str]:
        main = str(self._folder / "main")
        if self.kind == "nginx":
            return ["nginx", "-c", main, "-p", str(self._folder), "-e", f"{self._folder}/errors"]
        return ["caddy", "run", "--config", main, "--adapter", "caddyfile"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it for as long as the block lasts."""
        with (self._folder / "output").open("wb") as output:
            process = await trio.lowlevel.open_process(
                self._command,
                env=os.environ | {"HOME": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._process = process
        try:
            with trio.fail_after(START_SECONDS):
                while (await self.curl("/healthz")).status != 200:
                    assert process.poll() is None, (self._folder / "output").read_text()
                    await trio.sleep(0.05)
            yield
        finally:
            process.terminate()  # of nginx's master, which ends its workers
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await process.wait()
            process.kill()

    async def reload(self) -> None:
        """Let it read its file again, as its unit does."""
        if self.kind == "nginx":
            self._process.send_signal(signal.SIGHUP)
        else:
            address = f"127.0.0.1:{self._admin_port}"
            words = ["--config", str(self._folder / "main"), "--adapter", "caddyfile", "--force"]
            await trio.run_process(
                ["caddy", "reload", "--address", address, *words],
                capture_stdout=True,
                capture_stderr=True,
            )

    async def curl(
        self, target: str, *words: str, address: str = "127.0.0.1", http: str = "--http1.1"
    ) -> Answer:
        """GET a page as a client at this address."""
        url = target if "://" in target else f"https://{NAME}:{self.port}{target}"
        body = self._folder / "answer"
        body.write_bytes(b"")
        command = ["curl", "-s", "-g", "-m", "20", "-o", str(body), "--interface", address, http]
        for port in (self.port, self._plain_port):
            command += ["--resolve", f"{NAME}:{port}:127.0.0.1"]
        command += ["--cacert", str(self.certificate), "-w", "%{http_code} %{http_version}"]
        result = await trio.run_process([*command, *words, url], capture_stdout=True, check=False)
        status, version = result.stdout.decode().split()
        return Answer(int(status), version, body.read_bytes())

    @property
    def plain_url(self) -> str:
        """Where it answers without TLS."""
        return f"http://{NAME}:{self._plain_port}"

    @asynccontextmanager
    async def subscribe(
        self,
        target: str = "/turbostream",
        *,
        address: str = "127.0.0.1",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[trio_websocket.WebSocketConnection]:
        """Open a WebSocket over TLS as a client at this address.

        Raises:
            trio_websocket.ConnectionRejected: with the status, where it is refused.
        """
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.set_alpn_protocols(["http/1.1"])
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=address)
        secured = trio.SSLStream(stream, context, server_hostname=NAME, https_compatible=True)
        async with secured, trio.open_nursery() as nursery:
            with trio.fail_after(5):
                connection = await trio_websocket.wrap_client_stream(
                    nursery,
                    secured,
                    f"{NAME}:{self.port}",
                    target,
                    extra_headers=[
                        (name.encode(), value.encode()) for name, value in (headers or {}).items()
                    ],
                    max_message_size=4 * 1024 * 1024,
                )
            yield connection
            with trio.move_on_after(2):
                await connection.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def proxied(
    kind: str, folder: Path, upstream: int, *, changes: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy before the server on a port, with these changes to the example's text."""
    proxy = Proxy(kind, folder, upstream, changes or {})
    async with proxy.running():
        yield proxy


def _certificate(folder: Path) -> Path:
    """Make a certificate that signs itself, and its key beside it."""
    certificate = folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={NAME}"),
            *("-addext", f"subjectAltName=DNS:{NAME}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate
