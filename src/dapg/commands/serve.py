"""The gallery as a page and an API: search by night images in the browser, judge, delete, and account for it."""

from dataclasses import dataclass

from dapg.commands._settings import parse, wants_help
from dapg.core.errors import UsageError
from dapg.core.ranges import Port

_HELP = """usage: dapg serve GALLERY [--host 127.0.0.1] [--port 8765] [--NAME VALUE ...]
       dapg serve --demo [GALLERY|DEMO]

A page for searching (an image, a box, filters, verdicts, a timeline, export) and an API under /api/v1. On this
machine alone the command prints a link that logs in once as an administrator; everybody else needs a token (dapg
gallery users). Beyond this machine it takes --certificate and --key. --demo makes a gallery of rendered people and
night images to search it by, within a minute; with the folder of a finished `dapg demo` it takes that run's network.
The networks that come with dapg have seen rendered people only: they show how a search works, not who a real person is.

examples:
  dapg serve --demo
  dapg serve --demo outputs/demo
  dapg serve outputs/gallery
  dapg serve outputs/gallery --host 0.0.0.0 --names search.example.org --certificate cert.pem --key key.pem
"""
_DEMO = "outputs/gallery-demo"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeSettings:
    """Where it listens."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: Port = 8765
    """Port; 0: a free one."""
    names: str = ""
    """Names of this server, as browsers call it, commas between them; localhost and ``host`` are among them."""
    certificate: str = ""
    """TLS certificate chain (PEM)."""
    key: str = ""
    """Its private key (PEM)."""
    without_tls: bool = False
    """Listen beyond this machine without TLS, behind a proxy that has it: tokens and faces travel in the clear."""
    model: str = ""
    """Where the gallery's model is now, if it was moved."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def main(words: list[str], program: str) -> None:
    """Parse, open the gallery, serve until interrupted."""
    if wants_help(words):
        parse(program, ServeSettings(), words, _HELP)
    demo = "--demo" in words
    words = [word for word in words if word != "--demo"]
    folder, words = (words[0], words[1:]) if words and not words[0].startswith("-") else ("", words)
    settings = parse(program, ServeSettings(), words, _HELP)
    if not folder and not demo:
        raise UsageError(f"{program} needs GALLERY, or --demo; see {program} --help")
    if bool(settings.certificate) != bool(settings.key):
        raise UsageError("TLS takes both --certificate and --key")
    if settings.host not in _LOOPBACK and not settings.certificate and not settings.without_tls:
        raise UsageError(
            f"others could reach {settings.host}: give --certificate and --key, or --without_tls true behind a proxy "
            "that has TLS"
        )
    try:
        import fastapi as _fastapi  # noqa: F401
        import python_multipart as _multipart  # noqa: F401
        import uvicorn as _uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{program} needs {error.name}: pip install 'dapg[gallery]'") from error
    _serve(folder or _DEMO, demo, settings)


def _serve(folder: str, demo: bool, settings: ServeSettings) -> None:
    import errno
    import socket
    import ssl
    from pathlib import Path

    import torch
    import uvicorn

    from dapg.gallery.gallery import ABOUT, Gallery
    from dapg.gallery.server.app import ServerSettings, create_app
    from dapg.pipelines.demo_gallery import MODEL, QUERIES, demo_gallery

    if settings.certificate:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.certificate, settings.key)
        except OSError as error:
            files = f"--certificate {settings.certificate} and --key {settings.key}"
            raise UsageError(f"{files} are not a chain in PEM and its key: {error.strerror}") from error
    place, trained = Path(folder), ""
    if demo:
        from dapg.pipelines.demo import trained_network

        trained = trained_network(place)
        place = place / "gallery" if trained else place
    if demo and not (place / ABOUT).is_file():
        gallery = demo_gallery(
            place, lambda line: print(line, flush=True), settings.model or trained or MODEL, settings.device
        )
    else:
        gallery = Gallery(place, settings.device, settings.model)
    gallery.network()  # whatever is wrong with it is said now, and the first search need not wait
    torch.set_num_threads(1)  # each request has a thread of its own; more for one are slower where others wait
    alone, secure = settings.host in _LOOPBACK, bool(settings.certificate)
    own = f"[{settings.host}]" if ":" in settings.host else settings.host
    names = [name.strip() for name in settings.names.split(",") if name.strip()]
    app = create_app(
        gallery,
        ServerSettings(
            secure=secure or not alone,  # beyond this machine, TLS is here or in the proxy
            hosts=("localhost", "127.0.0.1", "[::1]", own, *names),
            login_name=gallery.actor.name if alone else "",
            queries=place / QUERIES if (place / QUERIES).is_dir() else None,
        ),
    )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            other = "; --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
            where = f"{settings.host} port {settings.port}"
            raise UsageError(f"cannot listen at {where}: {error.strerror}{other}") from error
        address = f"{'https' if secure else 'http'}://{own}:{listener.getsockname()[1]}"
        if alone:
            print(f"open {address}/login?key={app.state.login_key}")
            print("the link works once, for ten minutes; Ctrl-C ends the server", flush=True)
        else:
            print(f"serving {place} at {address}; tokens: dapg gallery users {place} --add NAME", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=settings.certificate or None,
            ssl_keyfile=settings.key or None,
        )
        uvicorn.Server(config).run(sockets=[listener])
