"""The hits as one HTML page that needs no other file: depictions, similarities, predictions."""

from html import escape

import polars as pl

from stkd_screen.search.depict import MOST_ATOMS, depict
from stkd_screen.search.manifest import Manifest
from stkd_screen.search.queries import Queries

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<main>
{sections}
</main>
</body>
</html>
"""

NO_PICTURE = (
    f'<p class="note">no picture: RDKit cannot read this SMILES, or it has more than {MOST_ATOMS} atoms</p>'
)

STYLE = """
:root { --page: #f6f7f9; --card: #fff; --text: #1b1f24; --muted: #5a6472; --line: #d9dee5; --accent: #1f5fbf;
  --atom: #1b1f24; --nitrogen: #2447d8; --oxygen: #c81e1e; --sulfur: #8a6d00; --halogen: #17803d;
  --shared: #ffe08a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --card: #1e2329; --text: #e6e9ed; --muted: #9aa5b1; --line: #343b44;
    --accent: #7fb0ff; --atom: #e6e9ed; --nitrogen: #8fa8ff; --oxygen: #ff8a80; --sulfur: #e3c44a;
    --halogen: #6fd08c; --shared: #6b5410; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 1500px; margin: 0 auto; padding: 1rem 1.5rem; }
h1 { font-size: 1.4rem; margin: .5rem 0; }
h2 { font-size: 1.05rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
header p { color: var(--muted); margin: 0; }
section { display: grid; grid-template-columns: 290px 1fr; gap: 1rem; padding: 1rem 0;
  border-top: 1px solid var(--line); align-items: start; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: .8rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem;
  min-width: 0; }
.query { position: sticky; top: .8rem; border-color: var(--accent); }
svg { display: block; width: 100%; height: auto; }
.name { font-weight: 600; overflow-wrap: anywhere; }
.smiles { color: var(--muted); font: 12px/1.4 ui-monospace, monospace; overflow-wrap: anywhere;
  margin: .2rem 0; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .4rem 0 0; }
dt { color: var(--muted); }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.note { color: var(--muted); }
@media (max-width: 760px) { section { grid-template-columns: 1fr; } .query { position: static; } }
@media print { .query { position: static; } .card { break-inside: avoid; } }
"""


def html_report(
    hits: pl.DataFrame, queries: Queries, manifest: Manifest, index_name: str, where: str | None = None
) -> str:
    """The page. Every value is escaped, and no script would run on it.

    Args:
        hits: as `search` gives them.
        queries: the queries that they belong to.
        manifest, index_name: of the index.
        where: the condition that the hits meet.
    """
    by_query = hits.partition_by("query", as_dict=True, maintain_order=True)
    sections = [
        _section(query, by_query[(query["query"],)], manifest)
        for query in queries.about.iter_rows(named=True)
    ]
    origin = manifest.origin
    intervals = "± 90% interval, " if origin.expected_errors else ""
    subtitle = (
        f"index {index_name}: {manifest.rows:,} molecules, embedded with model {origin.model}; energies at "
        f"level {origin.level}, {intervals}* where `embed` gave a warning. "
        "Highlighted: the largest substructure shared with the query."
        f"{f' Hits are those where {where}.' if where else ''}"
    )
    return PAGE.format(
        title=f"Molecules most like {len(sections)} quer{'y' if len(sections) == 1 else 'ies'}",
        subtitle=escape(subtitle),
        style=STYLE,
        sections="\n".join(sections),
    )


def _section(query: dict, hits: pl.DataFrame, manifest: Manifest) -> str:
    if hits["rank"].null_count():
        body = f'<p class="note">{escape(hits["error"][0])}</p>'
    else:
        cards = (_hit(hit, query["query_smiles"], manifest) for hit in hits.iter_rows(named=True))
        body = f'<div class="hits">{"".join(cards)}</div>'
    title = query["query_id"] or f"query {query['query']}"
    energies = _energies(query, manifest, query["warned"])
    return (
        f'<section><div class="card query"><h2>{escape(title)}</h2>{_picture(query["query_smiles"])}'
        f'<p class="smiles">{escape(query["query_smiles"])}</p>{_list(energies)}</div>{body}</section>'
    )


def _hit(hit: dict, query_smiles: str, manifest: Manifest) -> str:
    values = [("cosine", _number(hit["cosine"], 3)), ("Tanimoto", _number(hit["tanimoto"], 3))]
    values += _energies(hit, manifest, hit["warned"])
    name = f"{hit['rank']}. {hit['id'] or ''}"
    return (
        f'<article class="card">{_picture(hit["smiles"], query_smiles)}<div class="name">{escape(name)}</div>'
        f'<p class="smiles">{escape(hit["smiles"])}</p>{_list(values)}</article>'
    )


def _picture(smiles: str, query_smiles: str | None = None) -> str:
    return depict(smiles, query_smiles) or NO_PICTURE


def _energies(row: dict, manifest: Manifest, warned: bool) -> list[tuple[str, str]]:
    return [
        (
            name.removesuffix("_ev"),
            f"{with_error(row, name)}{' eV' if name.endswith('_ev') else ''}{' *' if warned else ''}",
        )
        for name in manifest.origin.predictions
        if row[name] is not None
    ]


def with_error(row: dict, name: str) -> str:
    """A prediction of a row with its expected error, where there is one: 6.13 ± 0.32."""
    value, error = row[name], row.get(f"{name}_err")
    if value is None:
        return "-"
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _list(values: list[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values)
    return f"<dl>{items}</dl>"
