"""Downloads from a server on this machine that breaks off, knows no ranges, or has another file."""

import contextlib
import hashlib
import http.server
import threading

import pytest

from fljax import data
from fljax.data.readers import download as module

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@contextlib.contextmanager
def server(breaks=0, ranges=True, length=True):
    """Yields (address, requests); the first `breaks` answers end in the middle of what is left."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            requests.append(wanted)
            start = int(wanted[6:-1]) if wanted and ranges else 0
            if self.path != "/a.bin":
                return self.send_error(404)
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            rest = CONTENT[start:]
            if length:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            is_cut = len(requests) <= breaks
            self.wfile.write(rest[: len(rest) // 2] if is_cut else rest)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/a.bin", requests
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.0)


def test_a_download_goes_on_where_it_was_cut_off(tmp_path):
    with server(breaks=2) as (url, requests):
        path = data.download(url, size=len(CONTENT), sha256=SHA256, data_dir=tmp_path)
        assert path == tmp_path / "a.bin" and path.read_bytes() == CONTENT
        assert requests == [None, "bytes=5120-", "bytes=7680-"]
        assert data.download(url, sha256=SHA256, data_dir=tmp_path) == path
        assert len(requests) == 3  # it was there
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_what_arrived_is_kept_for_the_next_call(tmp_path):
    with server(breaks=4) as (url, requests):
        with pytest.raises(OSError, match="broke off 4 times .* goes on behind it"):
            data.download(url, data_dir=tmp_path)
        assert 0 < (tmp_path / "a.bin.part").stat().st_size < len(CONTENT)
        assert data.download(url, data_dir=tmp_path).read_bytes() == CONTENT
        assert requests[-1] == "bytes=9600-"


@pytest.mark.parametrize("how", [{"ranges": False}, {"length": False}])
def test_servers_without_ranges_or_lengths(how, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:100])
    with server(**how) as (url, _):
        assert data.download(url, sha256=SHA256, data_dir=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("more", [b"", b"of another file"])
def test_a_part_that_is_whole_is_taken_and_a_longer_one_is_not(more, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + more)
    with server() as (url, _):
        assert data.download(url, sha256=SHA256, data_dir=tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused(tmp_path):
    with server() as (url, _):
        for wrong, said in [({"size": 9}, "10,240 bytes, not 9"), ({"sha256": "0" * 64}, SHA256)]:
            with pytest.raises(ValueError, match=said):
                data.download(url, data_dir=tmp_path, **wrong)
            assert not list(tmp_path.iterdir())
        with pytest.raises(OSError, match="the server says 404"):
            data.download(url.replace("a.bin", "b.bin"), data_dir=tmp_path)
    with pytest.raises(OSError, match="a.bin"):  # the server is gone
        data.download(url, data_dir=tmp_path)
    (tmp_path / "a.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes, not 6: remove it"):
        data.download(url, size=6, data_dir=tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'cifar100.sqlite.lzma'"):
        data.download("cifar100.sqlite", data_dir=tmp_path)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        data.download(url, sha256="abc", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"fljax.data.download\('cifar100.sqlite.lzma'\)"):
        data.load("tff", path="cifar100.sqlite.lzma", data_dir=tmp_path)
