from itertools import count

from semcodec.component import Component
from semcodec.hookspecs import hookimpl


@hookimpl
def semcodec_components():
    for number in count():
        yield Component("encoder", f"endless-{number}", "endless_codecs:Endless", "one more")
