"""No secret of a URI is shown, stored or logged, whatever its scheme; no name moves a terminal."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.registry import known_implementations
from hypothesis import given
from hypothesis import strategies as st

from gangru_dist.bars.files import list_files
from gangru_dist.base import log
from gangru_dist.base.errors import GangruError
from gangru_dist.base.redaction import find_secret, redact, sanitize
from gangru_dist.base.storage import Storage
from gangru_dist.commands import cli, main
from gangru_dist.commands.jobs import JOBS
from gangru_dist.config import sources

CANARY = "CANARYcanary7"
ARROW = {"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file"}
OTHERS = {"wasb", "wasbs", "ftps", "s3n", "unheard-of", "S3", "x+y.z-1"}
SCHEMES = sorted({name for name in known_implementations if "_" not in name} | ARROW | OTHERS)
FORMS = {
    "password": "user:{secret}@host/path",
    "slash": "KEY:CAN/{secret}@bucket/path",
    "slash-first": "KEY:/{secret}@bucket",
    "digits": "KEY:12/{secret}@bucket/path",
    "at": "KEY:p@{secret}@bucket/path",
    "hash": "KEY:{secret}#1@bucket/path",
    "question": "KEY:{secret}?1@bucket/path",
    "quoted": "user%3A{secret}@host/path",
    "no-name": ":{secret}@host/path",
    "key-in-query": "host/path?account_key={secret}",
    "later-in-query": "bucket/path?region=eu&secret_key={secret}",
    "presigned": "host/path?X-Amz-Signature={secret}",
    "sas": "host/path?sv=2022&sig={secret}",
    "capital-query": "host/path?AccessKey={secret}",
    "query-and-fragment": "host/path?token={secret}#x",
}
STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"}
URIS = {
    name: [
        f"{scheme}://{form.format(secret=CANARY)}"
        for scheme in SCHEMES
        if name != "digits" or scheme in STORES  # elsewhere it is a port, and a path with an @
    ]
    for name, form in FORMS.items()
}
"""Form of a secret -> a URI of each scheme."""
ROADS: dict[str, Callable[[str], object]] = {
    "storage": Storage,
    "bars": list_files,
    "config": lambda uri: sources.load("demo", uri),
}


class TestRefused:
    @pytest.mark.parametrize("form", FORMS)
    def test_a_secret_is_refused_and_not_repeated(self, form: str) -> None:
        for uri in URIS[form]:
            for road in ROADS.values():
                with pytest.raises(GangruError) as raised:
                    road(uri)
                assert CANARY not in "".join(traceback.format_exception(raised.value))
                assert "environment" in str(raised.value) or uri.startswith("file:"), uri

    @pytest.mark.parametrize("form", FORMS)
    def test_nor_shown_where_a_library_says_it(self, form: str) -> None:
        for uri in URIS[form]:
            for text in (uri, f"cannot open '{uri}': no", f"<{uri}>", f"a {uri} b s3://fine/x"):
                assert CANARY not in redact(text), redact(text)

    @pytest.mark.parametrize("job", JOBS)
    def test_by_no_job(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], job: str) -> None:
        for form in (form for name, form in FORMS.items() if name != "digits"):
            uri = f"webhdfs://{form.format(secret=CANARY)}"
            words = ["--storage", uri]
            if job in ("panel", "pipeline"):
                words = ["--storage", str(tmp_path), "--bars", uri]
            assert main([job, *words]) == 2
            shown = capsys.readouterr()
            assert CANARY not in shown.out + shown.err
        for file in tmp_path.rglob("*"):
            assert file.is_dir() or CANARY.encode() not in file.read_bytes()

    @pytest.mark.parametrize(
        "uri",
        [
            "s3://bucket/prefix?region=eu-central-1&endpoint_override=h:9000&scheme=http",
            "s3://bucket/a@b",
            "s3://bucket/a:b@c",
            "abfss://container@account.dfs.core.windows.net/x",
            "sftp://user@host:22/x",
            "hdfs://namenode:8020/user/x",
            "abfs://c@a.dfs.core.windows.net/x?blob_storage_authority=h:1&enable_tls=false",
            "gs://anonymous@bucket/x?endpoint_override=h:1&scheme=http",
            "smb://user@host/share",
            "file:///home/a@b/x",
        ],
    )
    def test_what_has_none_is_left_alone(self, uri: str) -> None:
        assert find_secret(uri) is None
        assert redact(f"cannot read {uri}") == f"cannot read {uri}"

    def test_a_path_is_no_uri(self) -> None:
        assert Storage("/a:b@c/d").path == "/a:b@c/d"

    @given(st.text(), st.sampled_from(SCHEMES))
    def test_any_text_can_be_parsed_and_redacted(self, text: str, scheme: str) -> None:
        for uri in (text, f"{scheme}://{text}"):
            assert isinstance(sanitize(uri), str)
            try:
                find_secret(uri)
            except ValueError:
                assert "[" in text or "]" in text  # no IPv6 address


class TestLog:
    def test_events_hide_secrets_and_escape_control_characters(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log.setup()
        logging.getLogger("gangru_dist.x").info(
            "read uri=%s stock=%s",
            f"s3://K:{CANARY}@b",
            "\x1b[2J\x1b]0;x\x07\nerror forged=1\u202e",
        )
        shown = capsys.readouterr().err
        assert CANARY not in shown
        assert shown.count("\n") == 1
        assert r"stock=\x1b[2J\x1b]0;x\x07\nerror forged=1\u202e" in shown

    def test_errors_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        def body(job: cli.Job) -> cli.Outcome:
            raise GangruError(f"stock '\x1b[31mA\x07' of hdfs://u:{CANARY}@h is odd\nhere")

        assert cli.run_job("doc", body, ["--storage", "x-y"]) == 2
        shown = capsys.readouterr().err
        assert CANARY not in shown
        assert r"error: stock '\x1b[31mA\x07' of hdfs://***@h is odd" in shown

    def test_and_what_the_command_line_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            cli.run_job("doc", sys.exit, ["--storage", "x", f"--bras=s3://K:{CANARY}@b"])
        assert CANARY not in capsys.readouterr().err


class TestPlaces:
    @pytest.mark.parametrize(
        ("place", "says"),
        [
            ("memory://x", "memory of one process"),
            ("/proc/self", "is a system folder"),
            ("file:///sys/x", "is a system folder"),
            ("/dev/fd/3", "is a system folder"),
            ("simplecache::s3://b/x", "names a place within a file or another.* Unpack or copy"),
            ("zip://x.csv::/tmp/a.zip", "names a place within a file"),
            ("tar:///tmp/a.tar", "names a place within a file"),
            ("ftp://127.0.0.1:1/x", "'ftp://127.0.0.1:1/x' cannot be a storage"),
            ("/tmp/" + "a" * 300, "'/tmp/aaa.*is too long: 305 bytes, .* 255 a name"),
            ("/tmp" + "/abc" * 1100, "is too long: 4404 bytes, .* 4095 in all"),
            ("1s3://b/x", "is no URI"),
            ("~nosuchuser/x", "'~nosuchuser/x' leads nowhere: .*absolute path"),
            ("a\0b", "leads nowhere: embedded null byte"),
            ("a\udcffb", "is not UTF-8"),
            ("http://127.0.0.1:9/x", "is a web address.* Download"),
            ("https://host/bars.parquet", "is a web address"),
            ("reference://", "names a place within a file"),
            ("dir://x", "names a place within a file"),
            ("generic://x", "'generic://x' cannot be a storage"),
            ("file://user:12345@/x", r"'file://\*\*\*@/x' contains a host"),
        ],
    )
    def test_refused(self, place: str, says: str) -> None:
        with pytest.raises(GangruError, match=says):
            Storage(place)

    @pytest.mark.parametrize(
        ("uri", "says"),
        [
            ("ftp://127.0.0.1:1/x", "Connection refused. Check the host's name"),
            ("generic://x", "cannot use 'generic://x'"),
            ("github://x", "cannot use 'github://x'"),
        ],
    )
    def test_refused_for_bars(self, uri: str, says: str) -> None:
        with pytest.raises(GangruError, match=says):
            list_files(uri)

    def test_shared_memory_is_a_folder(self) -> None:
        assert Storage("/dev/shm/x").path == "/dev/shm/x"

    def test_a_link_into_proc(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/proc/self")
        with pytest.raises(GangruError, match="is a system folder"):
            Storage(str(tmp_path / "link"))
