"""The format of a file by its first bytes; the ending of its name is not used."""

from __future__ import annotations

from audioset_core.errors import AudioError, Reason

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (8, b"AVI ", "AVI"),
    (8, b"WAVE", "WAV"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"),
    (0, b"riff", "W64"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "OGG"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "MP4"),
    (4, b"mdat", "MP4"),
    (4, b"wide", "MP4"),
    (0, b"\x1aE\xdf\xa3", "Matroska"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "ASF"),
    (0, b"#!AMR", "AMR"),
    (0, b"FLV\x01", "FLV"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA1", "TTA"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b".RMF", "RealMedia"),
    (0, b"DSD ", "DSF"),
    (0, b"FRM8", "DSDIFF"),
    (0, b"Creative Voice File", "VOC"),
    (0, b"NIST_1A", "NIST"),
    (0, b"\x0bw", "AC-3"),
    (0, b"\x00\x00\x01\xba", "MPEG-PS"),
    (0, b"ID3", "ID3 tag"),
)
_TS_BYTES = 188

_OTHERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"GIF8", "a GIF picture"),
    (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"SQLite format 3\0", "a database"),
)


def kind_of(head: bytes) -> str | None:
    """The format of a file that begins with these bytes; None if they are of no known format.

    >>> kind_of(b"RIFF\\x24\\0\\0\\0WAVEfmt ")
    'WAV'
    """
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    if len(head) > _TS_BYTES and head[0] == head[_TS_BYTES] == 0x47:
        return "MPEG-TS"
    if len(head) < 12 and head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        return head[:4].decode()
    # MPEG audio: a sync word, a version, a layer, a bit rate and a sample rate that there are.
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        is_valid = head[1] & 0x18 != 0x08 and head[1] & 0x06 and head[2] & 0x0C != 0x0C
        if is_valid and head[2] & 0xF0 != 0xF0:
            return "MP3"
    return None


def other_file(head: bytes) -> str | None:
    """What a file is that is not a recording, such as ``a zip archive``; None if unknown."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if head and head.isascii() and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text"
    return None


def not_audio(head: bytes) -> AudioError:
    """The error for a file whose first bytes are of no recording."""
    other = other_file(head)
    detail = f"this is {other}" if other else "no known audio format begins like this"
    return AudioError(Reason.NOT_AUDIO, detail)
