"""Camtrap DP 1.0.2: deployments, media and observations as a data package, of recorders.

A package's tables have every column of the standard, in its order, since validators refuse a table
that lacks one. Times have whole seconds, which is all that the standard's format takes: a start is
rounded down, an end up, and tags have the exact seconds within the recording.

Sources: camtrap-dp.tdwg.org/data, camtrap-dp.tdwg.org/metadata (version 1.0.2, June 2025),
specs.frictionlessdata.io/table-schema.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from urllib.parse import quote_from_bytes

from audioset_core.export_formats.file_names import line_name, relative
from audioset_core.export_formats.rows import Recording
from audioset_core.export_formats.taxa import RANKS, Taxon
from audioset_core.export_formats.text import number, one_line

VERSION = "1.0.2"
PROFILE = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"
TABLES = ("deployments", "media", "observations")
_COLUMNS = {
    "deployments": (
        "deploymentID locationID locationName latitude longitude coordinateUncertainty "
        "deploymentStart deploymentEnd setupBy cameraID cameraModel cameraDelay cameraHeight "
        "cameraDepth cameraTilt cameraHeading detectionDistance timestampIssues baitUse "
        "featureType habitat deploymentGroups deploymentTags deploymentComments"
    ),
    "media": (
        "mediaID deploymentID captureMethod timestamp filePath filePublic fileName fileMediatype "
        "exifData favorite mediaComments"
    ),
    "observations": (
        "observationID deploymentID mediaID eventID eventStart eventEnd observationLevel "
        "observationType cameraSetupType scientificName count lifeStage sex behavior individualID "
        "individualPositionRadius individualPositionAngle individualSpeed bboxX bboxY bboxWidth "
        "bboxHeight classificationMethod classifiedBy classificationTimestamp "
        "classificationProbability observationTags observationComments"
    ),
}
COLUMNS = {table: tuple(names.split()) for table, names in _COLUMNS.items()}
"""The columns of each table, in the standard's order; most are about cameras and stay empty."""

LIMITS = (
    "How to read the observations: they are sounds. Those classified by a machine are what a model "
    "scored at or above a threshold; classificationProbability is that score, which is not a "
    "calibrated probability, and no person has heard them. Those classified by a human are what a "
    "person heard and judged to be there. A recording without an observation is not a silent one: "
    "absence is not claimed, and no individuals are counted. Classes are AudioSet's (tag class); "
    "a scientificName is given where the class stands for one taxon, and no finer than that."
)
"""What a package claims, at the end of its description."""

# Media types by the name of the container. Source: iana.org/assignments/media-types; x- where no
# type is registered.
_MEDIA_TYPES = {
    "wav": "audio/vnd.wave", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg",
    "mpeg": "audio/mpeg", "mp4": "audio/mp4", "aac": "audio/aac", "amr": "audio/AMR",
    "ac3": "audio/ac3", "aiff": "audio/aiff", "au": "audio/basic", "matroska": "video/matroska",
}  # fmt: skip
Moment = tuple[int, int]
"""Unix milliseconds, and the distance from UTC in seconds."""

_METERS_PER_DEGREE = 111_320
_WHOLE_MINUTE_S = 60

_TIME = {"type": "datetime", "format": "%Y-%m-%dT%H:%M:%S%z", "constraints": {"required": True}}
_ID = {"type": "string", "constraints": {"required": True}}


def _one_of(*allowed: str, required: bool = True) -> dict[str, Any]:
    return {"type": "string", "constraints": {"required": required, "enum": list(allowed)}}


def _between(low: float, high: float, *, required: bool = True) -> dict[str, Any]:
    limits = {"required": required, "minimum": low, "maximum": high}
    return {"type": "number", "constraints": limits}


# What must hold of the columns that are filled; of others, that a text may be missing.
_RULES: dict[str, dict[str, Any]] = {
    "deploymentID": _ID,
    "latitude": _between(-90, 90),
    "longitude": _between(-180, 180),
    "coordinateUncertainty": {"type": "integer", "constraints": {"minimum": 1}},
    "deploymentStart": _TIME,
    "deploymentEnd": _TIME,
    "timestampIssues": {"type": "boolean"},
    "mediaID": {"type": "string"},
    "timestamp": _TIME,
    "filePath": {
        "type": "string",
        "constraints": {"required": True, "pattern": r"^(?=^[^./~])(^((?!\.{2}).)*$).*$"},
    },
    "filePublic": {"type": "boolean", "constraints": {"required": True}},
    "fileMediatype": {
        "type": "string",
        "constraints": {"required": True, "pattern": "^(image|video|audio)/.*$"},
    },
    "observationID": _ID,
    "eventStart": _TIME,
    "eventEnd": _TIME,
    "observationLevel": _one_of("media", "event"),
    "observationType": _one_of("animal", "human", "vehicle", "blank", "unknown", "unclassified"),
    "classificationMethod": _one_of("human", "machine", required=False),
    "classificationTimestamp": _TIME | {"constraints": {}},
    "classificationProbability": _between(0, 1, required=False),
}
_KEYS = {"deployments": "deploymentID", "media": "mediaID", "observations": "observationID"}
_REFERENCES = {
    "deployments": (),
    "media": (("deploymentID", "deployments"),),
    "observations": (("deploymentID", "deployments"), ("mediaID", "media")),
}


def table_schema(table: str) -> dict[str, Any]:
    """What must hold of a table, as a Table Schema: names, types, ranges, keys."""
    text = {"type": "string"}
    return {
        "fields": [{"name": name} | _RULES.get(name, text) for name in COLUMNS[table]],
        "missingValues": ["", "NA", "NaN", "nan"],
        "primaryKey": _KEYS[table],
        "foreignKeys": [
            {"fields": name, "reference": {"resource": other, "fields": name}}
            for name, other in _REFERENCES[table]
        ],
    }


def cells(table: str, row: Mapping[str, str]) -> list[str]:
    """The row's cells, one for each column of the table."""
    return [row.get(name, "") for name in COLUMNS[table]]


@dataclass(slots=True)
class Deployment:
    """A recorder at a site, for as long as it stayed there; times are of its recordings.

    `period`: the first and last day that a rule of the site states, or "".
    """

    site: str
    latitude_deg: float
    longitude_deg: float
    serial: str | None
    period: str
    device: str | None
    start: Moment
    end: Moment
    n_recordings: int = 0
    has_doubts: bool = False

    @property
    def id(self) -> str:
        """Site, recorder and days; two deployments never share one."""
        parts = (self.site, self.serial or "recorder not known", self.period)
        return "/".join(
            one_line(part).replace("%", "%25").replace("/", "%2F") for part in parts if part
        )

    def row(self, precision_deg: float | None) -> dict[str, str]:
        """The cells of `deployments`. With a precision the place is rounded, and says so."""
        place = (self.latitude_deg, self.longitude_deg)
        uncertainty = ""
        if precision_deg:
            place = _rounded(place[0], precision_deg, 90), _rounded(place[1], precision_deg, 180)
            uncertainty = str(math.ceil(precision_deg * _METERS_PER_DEGREE * math.sqrt(0.5)))
        return {
            "deploymentID": self.id,
            "locationID": one_line(self.site),
            "locationName": one_line(self.site),
            "latitude": number(place[0]),
            "longitude": number(place[1]),
            "coordinateUncertainty": uncertainty,
            "deploymentStart": timestamp(*self.start),
            "deploymentEnd": timestamp(*self.end, is_end=True),
            "cameraID": one_line(self.serial or ""),
            "cameraModel": one_line(self.device or ""),
            "timestampIssues": _true(self.has_doubts),
            "deploymentComments": f"sound recorder; recordings: {self.n_recordings}; "
            "start and end are those of the first and the last one",
        }


@dataclass(frozen=True, slots=True)
class Files:
    """Where the sound files of a package are: below an address, or below `media` in a folder."""

    root: bytes
    url: str = ""
    is_public: bool = False

    def path(self, path: bytes) -> str:
        """The address or relative path; the standard takes no `..`, not even within a name."""
        if self.url:
            below = quote_from_bytes(relative(path, self.root), safe="/")
            return f"{self.url.rstrip('/')}/{below.lstrip('/')}".replace("..", ".%2E")
        return f"media/{line_name(path, self.root)}".replace("..", ".%2E")


def media_row(of: Recording, began: Moment, deployment: str, files: Files) -> dict[str, str]:
    """The cells of `media` for one recording."""
    name = line_name(of.path, files.root)
    kind = of.format.partition("/")[0].lower()
    slug = "".join(c if c.isalnum() else "-" for c in kind)
    return {
        "mediaID": of.clip,
        "deploymentID": deployment,
        "timestamp": timestamp(*began),
        "filePath": files.path(of.path),
        "filePublic": _true(files.is_public),
        "fileName": name.rpartition("/")[2],
        "fileMediatype": _MEDIA_TYPES.get(kind, f"audio/x-{slug}"),
        "mediaComments": one_line(of.remarks),
    }


@dataclass(frozen=True, slots=True)
class Said:
    """A sound in a recording, and who says so: a model (with its score), or a person."""

    mid: str
    name: str
    start_s: float
    end_s: float
    by: str
    at: datetime | None
    score: float | None = None
    tags: tuple[str, ...] = ()

    def row(
        self, of: Recording, began: Moment, deployment: str, source: tuple[str, str]
    ) -> dict[str, str]:
        """The cells of `observations`. `source`: what kind, and its scientific name, or ""."""
        method = "human" if self.score is None else "machine"
        began_ms, offset_s = began
        tags = (
            f"class:{self.name}", f"mid:{self.mid}", f"start_s:{number(self.start_s)}",
            f"end_s:{number(self.end_s)}", *self.tags,
        )  # fmt: skip
        return {
            "observationID": f"{of.clip[:16]}:{self.mid}:{round(self.start_s * 1000)}-"
            f"{round(self.end_s * 1000)}:{one_line(self.by)}",
            "deploymentID": deployment,
            "mediaID": of.clip,
            "eventStart": timestamp(began_ms + math.floor(self.start_s * 1000), offset_s),
            "eventEnd": timestamp(began_ms + math.ceil(self.end_s * 1000), offset_s, is_end=True),
            "observationLevel": "media",
            "observationType": source[0],
            "scientificName": source[1],
            "classificationMethod": method,
            "classifiedBy": one_line(self.by),
            "classificationTimestamp": self.at.astimezone(UTC).isoformat(timespec="seconds")
            if self.at
            else "",
            "classificationProbability": "" if self.score is None else number(self.score),
            "observationTags": " | ".join(one_line(tag).replace("|", "/") for tag in tags),
        }


def descriptor(
    metadata: Mapping[str, Any],
    deployments: Sequence[Deployment],
    taxa: Iterable[Taxon],
    created: datetime,
    precision_deg: float | None = None,
) -> dict[str, Any]:
    """The content of `datapackage.json`: what a person stated, and what the tables say.

    A person's entry for a taxon (its names in other languages, an id) is kept.
    """
    stated = {each["scientificName"]: each for each in metadata.get("taxonomic", ())}
    rows = [each.row(precision_deg) for each in deployments]
    project = {"individualAnimals": False} | metadata["project"] | {"observationLevel": ["media"]}
    text = metadata.get("description", "").rstrip()
    description = text if LIMITS in text else f"{text}\n\n{LIMITS}".strip()
    return {
        "resources": [
            {
                "name": name, "path": f"{name}.csv", "profile": "tabular-data-resource",
                "format": "csv", "mediatype": "text/csv", "encoding": "utf-8",
                "schema": f"{PROFILE}/{name}-table-schema.json",
            }
            for name in TABLES
        ],
        "profile": f"{PROFILE}/camtrap-dp-profile.json",
        **({"coordinatePrecision": precision_deg} if precision_deg else {}),
        **{name: value for name, value in metadata.items() if name not in ("resources", "profile")},
        "created": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": description,
        "project": project,
        "spatial": _box([(float(r["longitude"]), float(r["latitude"])) for r in rows]),
        "temporal": {
            "start": min(each["deploymentStart"] for each in rows)[:10],
            "end": max(each["deploymentEnd"] for each in rows)[:10],
        },
        "taxonomic": [
            {
                "scientificName": taxon.name,
                **({"taxonRank": taxon.rank} if taxon.rank in RANKS else {}),
                **stated.get(taxon.name, {}),
            }
            for taxon in sorted(set(taxa), key=lambda taxon: (taxon.name, taxon.rank))
        ],
    }  # fmt: skip


@lru_cache(4_096)  # a class begins where another does, and all of them are classified at once
def timestamp(unix_ms: int, utc_offset_s: int, *, is_end: bool = False) -> str:
    """ISO 8601 in whole seconds with the distance from UTC; an end is rounded up.

    >>> timestamp(1_716_000_000_500, 7200), timestamp(1_716_000_000_500, 7200, is_end=True)
    ('2024-05-18T04:40:00+02:00', '2024-05-18T04:40:01+02:00')
    """
    seconds = -(-unix_ms // 1000) if is_end else unix_ms // 1000
    # ISO 8601 has no seconds in the distance, which local mean times have.
    offset_s = utc_offset_s if utc_offset_s % _WHOLE_MINUTE_S == 0 else 0
    zone = timezone(timedelta(seconds=offset_s))
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).astimezone(zone).isoformat()
    )


def _rounded(value_deg: float, precision_deg: float, most_deg: int) -> float:
    near_deg = round(round(value_deg / precision_deg) * precision_deg, 9)
    return max(-most_deg, min(near_deg, most_deg))


def _box(places: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """GeoJSON of what encloses all places, (longitude, latitude); one place is a point."""
    if len(set(places)) == 1:
        return {"type": "Point", "coordinates": list(places[0])}
    (west, east), (south, north) = ((min(of), max(of)) for of in zip(*places, strict=True))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _true(value: bool) -> str:
    return "true" if value else "false"
