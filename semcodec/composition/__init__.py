"""From a spec string to a composition proven to fit."""
