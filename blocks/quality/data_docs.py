"""The Data Docs page of a dataset check, by Great Expectations' own renderer, made fit to be opened anywhere.

As rendered it would load styles, scripts and a logo from other hosts, run scripts, and show records' markup
as markup. As written here it is one file that loads nothing and runs nothing.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.files import explained, write_whole

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult

SHOWN = 200  # Refused rows that a check lists here; the verdict has all of them.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; color-scheme: light dark }
table { border-collapse: collapse; margin: .5rem 0; width: 100% } ul { list-style: none; padding: 0 }
td, th { border: 1px solid #8886; padding: .3rem .6rem; text-align: start; unicode-bidi: plaintext }
td { vertical-align: top } h4, h5, h6 { margin: .2rem 0 }
.alert { background: #8882; border-radius: .3rem; margin-top: 1.5rem; padding: .5rem .8rem }
.badge { background: #8883; border-radius: .2rem; padding: 0 .3rem } .sticky { position: static } a { color: inherit }
.card.mb-3, [data-toggle=collapse] { display: none } .code-snippet { background: none }
.fa-times::before { color: #c22; content: "✗" } .fa-check-circle::before { color: #183; content: "✓" }
.fa-exclamation-triangle::before { color: #a60; content: "⚠" }
"""
_OUTSIDE = [
    (r"<script\b.*?</script>|<link\b[^>]*>|<footer>.*?</footer>|<style></style>", ""),
    (r'<nav class="navbar navbar-expand-md.*?</nav>.*?</nav>', ""),
    (r"url\('https?://[^']*'\)", "none"),
    (r'<a href="\.\./[^"]*"\s*>(.*?)</a>', r"\1"),
]


def joined(results: list[Any], name: str, meta: Any) -> ExpectationSuiteValidationResult:
    """The results of several runs as one, so that they get one page."""
    from great_expectations.core import ExpectationSuiteValidationResult

    good = sum(bool(one.success) for one in results)
    counts = {
        "evaluated_expectations": len(results),
        "successful_expectations": good,
        "unsuccessful_expectations": len(results) - good,
        "success_percent": 100 * good / len(results),
    }
    return ExpectationSuiteValidationResult(
        success=good == len(results), results=results, suite_name=name, statistics=counts, meta=meta
    )


def publish(result: ExpectationSuiteValidationResult, docs: Path) -> Path:
    """Write the Data Docs page in place of the one before; it loads nothing and runs nothing."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    for one in result.results:
        _tidy(one)
    content = ValidationResultsPageRenderer(run_info_at_end=False).render(result)
    html: str = DefaultJinjaPageView().render(content)  # type: ignore[no-untyped-call]  # theirs is untyped
    for pattern, instead in _OUTSIDE:
        html = re.sub(pattern, instead, html, flags=re.DOTALL)
    head = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    html = html.replace("<head>", f"<head>{head}", 1).replace("</head>", f"<style>{_STYLE}</style></head>", 1)
    page = docs.absolute() / "index.html"
    with explained("the Data Docs can't be written", page, kept="everything as it was"):
        write_whole(page, html.encode())
    return page


def raised(result: ExpectationValidationResult) -> str:
    """What a check stumbled over; empty when it ran. To be looked at first: the rest says nothing then."""
    info: dict[str, Any] = result.exception_info or {}
    every = [info] if "raised_exception" in info else list(info.values())
    return next(
        (str(one.get("exception_message") or "no reason given") for one in every if one["raised_exception"]), ""
    )


def _tidy(result: ExpectationValidationResult) -> None:
    """Cut lists that a page would choke on and traces that say nothing to people, and make markup text."""
    result.result.pop("unexpected_index_query", None)
    for name, value in result.result.items():
        result.result[name] = _text(value)
    if trouble := raised(result):
        told = {"raised_exception": True, "exception_message": escape(trouble), "exception_traceback": ""}
        result.exception_info = told


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(one) for one in value[:SHOWN]]
    if isinstance(value, dict):
        return {name: _text(one) for name, one in value.items()}
    if isinstance(value, str):
        return escape(value, quote=False)
    return value.item() if hasattr(value, "item") else value
