"""The playground: what a spec makes of an input, beside its rivals. ``page.py`` shows it; the rest computes."""
