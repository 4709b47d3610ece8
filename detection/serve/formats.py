"""In which form an answer goes out: by a parameter, or by the header `Accept`."""

from __future__ import annotations

from typing import Literal

from fastapi import HTTPException

__all__ = ["MEDIA_TYPES", "Form", "Picture", "choose_form"]

Picture = Literal["png", "jpeg", "webp"]
Form = Literal["png", "jpeg", "webp", "json"]

MEDIA_TYPES: dict[Form, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "json": "application/json",
}


def choose_form(asked: Form | None, accept: str, default: Form) -> Form:
    """Return the form of an answer.

    Args:
        asked: The parameter `format`, which decides if it is given.
        accept: The header; of its types the one of the highest quality that is known here decides.
        default: For those who take anything.

    Raises:
        HTTPException: The header names nothing that is known here: 406.

    Example:
        >>> choose_form(None, "image/webp;q=0.5, image/jpeg", "png"), choose_form(None, "", "json")
        ('jpeg', 'json')
    """
    if asked is not None:
        return asked
    forms = {media: form for form, media in MEDIA_TYPES.items()}
    picture: Form = default if default != "json" else "png"
    known: dict[str, Form] = {"*/*": default, "image/*": picture, "application/*": "json", **forms}
    wanted = sorted((_parsed(entry) for entry in accept.split(",")), key=lambda item: -item[1])
    for media, quality in wanted:
        if media in known and quality > 0:
            return known[media]
    if accept.strip():
        raise HTTPException(406, f"answers are {', '.join(forms)}, but not {accept[:80]}")
    return default


def _parsed(entry: str) -> tuple[str, float]:
    """Return a media type and its quality."""
    media, *parameters = (part.strip().lower() for part in entry.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return media, float(value)
            except ValueError:
                return media, 0.0
    return media, 1.0
