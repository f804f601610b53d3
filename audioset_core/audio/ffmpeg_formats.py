"""The containers that FFmpeg may open here: recordings in one file, known by its bytes.

Left out on purpose: formats that lead to other files or addresses (play lists, ``concat``, ``hls``,
image sequences, devices), pictures, subtitles, and raw samples without a header, whose rate is
unknown. Source: ``ffmpeg -demuxers``.
"""

from __future__ import annotations

DEMUXERS = ",".join((
    # Phones, cameras, the web.
    "mov", "matroska", "asf", "asf_o", "avi", "flv", "live_flv", "mpegts", "mpeg", "rm", "nut",
    "mxf", "gxf", "wtv", "nsv", "nuv", "ivf", "dv", "ty", "pmp", "swf", "smk", "bink", "dhav",
    "lxf", "mlv", "kux", "pva", "ifv", "luodat", "film_cpk", "ipmovie", "roq", "4xm", "yop",
    # Sound alone, with a header.
    "wav", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "ape", "wv", "tta", "tak", "shn",
    "mpc", "mpc8", "ofr", "osq", "rka", "dsf", "iff", "voc", "sox", "nistsphere", "avr", "svs",
    "sds", "sdx", "pvf", "ircam", "8svx", "smjpeg", "wve", "wsd", "qcp", "amr", "3gp", "aea",
    "oma", "aa", "mmf", "epaf", "sln", "ilbc", "iamf", "mlp", "lc3", "kvag", "apm", "argo_asf",
    "argo_brp", "wsaud", "rso", "qoa", "wady", "wavarc", "hca", "ast", "adx", "hcom", "xwma",
    "act", "laf", "mtaf", "genh", "vag", "xvag", "bfstm", "brstm", "dss", "daud", "rpl", "cine",
    "alp", "rsd", "svag", "fsb", "acm", "bonk", "apc", "codec2", "xa", "vqf", "wsvqa", "sol",
    # Streams of frames, each with a sync word.
    "aac", "loas", "ac3", "eac3", "ac4", "dts", "dtshd", "truehd", "gsm", "spdif", "s337m", "g729",
    "g723_1", "sbc", "dfpwm",
))  # fmt: skip

# FFmpeg's names of demuxers to the ones that people know.
_NAMES = {
    "mov": "MP4", "matroska": "Matroska", "asf": "ASF", "amr": "AMR",
    "flv": "FLV", "avi": "AVI", "aac": "AAC", "mpegts": "MPEG-TS", "mpeg": "MPEG-PS",
    "rm": "RealMedia", "wv": "WavPack", "ape": "Monkey's Audio", "loas": "LOAS", "iff": "IFF",
}  # fmt: skip


def container_name(demuxer: str) -> str:
    """The usual name of the format that a demuxer reads."""
    first = demuxer.partition(",")[0]
    return _NAMES.get(first, first.upper())
