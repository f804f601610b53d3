"""Report and review: pages that need neither server nor network.

Their HTML, CSS and JavaScript are in `templates`.
"""

PUBLIC = (
    "examples",
    "heat_map",
    "render",
    "report_page",
    "review_page",
    "site_pictures",
    "timeline",
)
"""What other rooms may import."""
