"""What notebooks show of the main objects: a title, a few facts and a small table, all escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_ROWS = 12


def html_table(
    title: str, facts: Mapping[str, object], columns: Sequence[str] = (), rows: Sequence[Sequence[object]] = ()
) -> str:
    """Write an HTML fragment for ``_repr_html_``.

    Parameters
    ----------
    title : str
        The type, and what it is of.
    facts : mapping
        Name -> value; floats are shortened.
    columns : sequence of str
    rows : sequence of sequence
        Shown up to 12, with the number of those left out.
    """
    told = " · ".join(f"{escape(name)} <b>{escape(_text(value))}</b>" for name, value in facts.items())
    parts = [f"<div><strong>{escape(title)}</strong><br><span>{told}</span>"]
    if columns and rows:
        head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(value))}</td>" for value in row) + "</tr>" for row in rows[:_ROWS]
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        if len(rows) > _ROWS:
            parts.append(f"<small>and {len(rows) - _ROWS} more</small>")
    return "".join(parts) + "</div>"


def _text(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:119] + "…"
