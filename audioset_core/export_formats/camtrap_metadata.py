"""What a person has to state of a Camtrap DP package, and the check of a package that is written.

Nobody else knows who contributed, under which licence, and how the sites were chosen, so none of
that has a default. The file has the properties of `datapackage.json`, and may be an older one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from audioset_core.errors import UserError
from audioset_core.export_formats.camtrap_dp import table_schema
from audioset_core.export_formats.taxa import RANKS

_TEXT = {"type": "string", "pattern": r"\S"}
_URL = {"type": "string", "pattern": r"^https?://\S+$"}


def _some(items: dict[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "items": items}


def _record(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


# Source: camtrap-dp.tdwg.org/metadata, version 1.0.2, in the words of JSON Schema.
_METADATA = _record(
    "contributors project",
    name={"type": "string", "pattern": "^[-a-z0-9._/]+$"},
    title=_TEXT,
    description=_TEXT,
    version=_TEXT,
    homepage=_URL,
    image=_TEXT,
    id=_TEXT,
    bibliographicCitation=_TEXT,
    keywords=_some(_TEXT),
    contributors=_some(
        _record(
            "title",
            title=_TEXT,
            path=_URL,
            email={"type": "string", "pattern": r"^\S+@\S+$"},
            role={
                "enum": ["contact", "principalInvestigator", "rightsHolder", "publisher",
                         "contributor"]
            },
        )
    ),
    licenses=_some(
        _record("scope", scope={"enum": ["data", "media"]}, name=_TEXT, path=_URL), least=2
    ),
    project=_record(
        "title samplingDesign captureMethod",
        title=_TEXT,
        path=_URL,
        samplingDesign={
            "enum": ["simpleRandom", "systematicRandom", "clusteredRandom", "experimental",
                     "targeted", "opportunistic"]
        },
        captureMethod=_some({"enum": ["activityDetection", "timeLapse"]}),
        individualAnimals={"type": "boolean"},
    ),
    taxonomic=_some(
        _record("scientificName", scientificName=_TEXT, taxonRank={"enum": list(RANKS)}), least=0
    ),
    coordinatePrecision={"type": "number", "exclusiveMinimum": 0},
)  # fmt: skip


def read_metadata(path: Path) -> dict[str, Any]:
    """The properties of a package that a person states.

    Raises:
        UserError: the file is not JSON, or properties are missing or wrong; all are named.
    """
    import jsonschema

    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"the metadata {path} cannot be read: {error}") from None
    errors = jsonschema.Draft202012Validator(_METADATA).iter_errors(found)
    wrong = [text for error in errors for text in _in_words(error)]
    if not wrong:
        wrong = _wrong_licenses(found.get("licenses"))
    if wrong:
        raise UserError(f"the metadata {path}: {'; '.join(wrong)} (docs/publishing.md)")
    return dict(found)


def _in_words(error: Any) -> Iterator[str]:
    place = ".".join(map(str, error.absolute_path)) or "the file"
    if error.validator == "required":
        prefix = "" if place == "the file" else f"{place}."
        # Each missing property has an error of its own, which begins with its name.
        name = next(n for n in error.validator_value if error.message.startswith(repr(n)))
        yield f"{prefix}{name} is missing"
    elif error.validator == "enum":
        allowed = error.validator_value
        near = get_close_matches(str(error.instance), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{place}: {error.instance!r} is none of {', '.join(allowed)}{hint}"
    elif error.validator == "pattern":
        what = {_URL["pattern"]: "no address that begins with http:// or https://"}
        yield f"{place}: {error.instance!r} is {what.get(error.validator_value, 'not valid')}"
    elif error.validator == "minItems":
        yield f"{place}: at least {error.validator_value} needed"
    else:
        yield f"{place}: {error.instance!r} is no {error.validator_value}"


def _wrong_licenses(licenses: list[dict[str, Any]] | None) -> list[str]:
    if licenses is None:
        return []
    wrong = [
        f"licenses.{n}: name or path is missing"
        for n, each in enumerate(licenses)
        if not each.keys() & {"name", "path"}
    ]
    missing = {"data", "media"} - {each["scope"] for each in licenses}
    return wrong + [f"licenses: none with the scope {scope}" for scope in sorted(missing)]


def problems(folder: Path, limit: int = 10) -> list[str] | None:
    """What frictionless finds wrong in a package; None where it is not installed.

    The tables are compared with this project's own statement of the standard, so no network is
    needed. `frictionless validate datapackage.json` compares with the published one.
    """
    try:
        from frictionless import FrictionlessException, Package
    except ImportError:
        return None
    content = json.loads((folder / "datapackage.json").read_text(encoding="utf-8"))
    del content["profile"]
    for resource in content["resources"]:
        resource["schema"] = table_schema(resource["name"])
    try:
        report = Package.from_descriptor(content, basepath=str(folder)).validate(limit_errors=limit)
    except FrictionlessException as error:
        return [reason.message for reason in error.reasons or [error.error]]
    found = [f"{task.name}: {error.message}" for task in report.tasks for error in task.errors]
    return [*(error.message for error in report.errors), *found][:limit]
