import pytest

from sidecar.app.reading import Place, bodies, place_of, schema_check
from sidecar.config.settings import load_settings
from sidecar.core.errors import SinkError
from sidecar.core.record.frame import CLOSE, OPEN, RECORD, encode_frame, segment_name


def segment(folder, worker, *frames):
    (folder / worker).mkdir(parents=True, exist_ok=True)
    with (folder / worker / segment_name(1, 1)).open("ab") as file:
        for number, (kind, stream, body) in enumerate(frames, 1):
            file.write(encode_frame(kind, stream, number if stream else 0, b"%026d" % number, b"c", body))


async def read(place, last=None):
    return [body async for body in bodies(load_settings(None, {}), place, last)]


async def test_a_journal_gives_the_records_of_all_workers_and_of_one_stream(tmp_path):
    segment(tmp_path, "0", (OPEN, "", b"{}"), (CLOSE, "records", b"a"), (RECORD, "denials", b"no"))
    segment(tmp_path, "1", (RECORD, "records", b"b"))
    assert sorted(await read(Place("records", journal=tmp_path))) == [b"a", b"b"]
    assert await read(Place("denials", journal=tmp_path)) == [b"no"]


async def test_half_a_line_is_not_a_record_yet(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"1\n2\n3")
    assert await read(Place("records", file=tmp_path / "x.jsonl")) == [b"1", b"2"]
    assert await read(Place("records", file=tmp_path / "x.jsonl"), 1) == [b"2"]


async def test_a_file_that_is_not_there_yet_holds_nothing(tmp_path):
    assert await read(Place("records", file=tmp_path / "x.jsonl")) == []


@pytest.mark.parametrize(
    ("environment", "stream", "place"),
    [
        ({}, "records", "records.jsonl"),
        ({}, "denials", "records.denials.jsonl"),
        ({"SIDECAR_KAFKA__BOOTSTRAP_SERVERS": "h:1"}, "records", "topic usage.records"),
        ({"SIDECAR_KAFKA__BOOTSTRAP_SERVERS": "h:1"}, "denials", "topic usage.denials"),
    ],
)
def test_records_are_where_the_settings_send_them(environment, stream, place):
    assert str(place_of(load_settings(None, environment), stream, None, None)).endswith(place)


def test_standard_output_cannot_be_read_back(tmp_path):
    (tmp_path / "s.yaml").write_text("sink: { stdout: true, file: null }\n")
    with pytest.raises(SinkError, match="name --journal or --file"):
        place_of(load_settings(tmp_path / "s.yaml", {}), "records", None, None)


def test_a_record_is_held_to_the_schema_of_its_own_kind():
    check = schema_check()
    assert check({"type": "sidecar.nonsense.v1"}) == "type 'sidecar.nonsense.v1' is not one of ours"
    assert "is a required property" in check({"type": "sidecar.usage.v1"})
