"""Report and review: pages that need neither server nor network.

Their HTML, CSS and JavaScript are in `templates`.
"""

PUBLIC = ("render", "report_page", "review_page")
"""What other rooms may import."""
