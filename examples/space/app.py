"""The playground as the app of a Hugging Face Space: copy this folder into one."""

from semcodec.play.page import serve
from semcodec.play.playground import Playground

if __name__ == "__main__":
    # Visitors choose among the specs that are listed; weights that are not in the package are not fetched for them.
    serve(Playground(), host="0.0.0.0", port=7860)
