from semcodec.component import Component
from semcodec.hookspecs import hookimpl

print("hello from a plugin")


@hookimpl
def semcodec_components():
    print("and from its hook")
    yield Component("encoder", "chatty", "prints_codecs_more:Chatty", "prints when it is loaded")
