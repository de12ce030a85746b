"""dct: transform coding of features at a cut. Listing imports this, so it imports nothing heavy."""

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl
from semcodec.specs import EncoderSpec, SpecMismatch, TensorSpec, describe


@hookimpl
def semcodec_components():
    """The record of the encoder."""
    yield Component(
        kind="encoder",
        name="dct",
        target="semcodec_dct.encoder:Dct",
        spec="semcodec_dct:spec",
        summary="maps at a cut by a block transform of each channel",
        params=(
            Param(
                "step",
                float,
                0.5,
                "of the quantiser, in root mean squares of the maps",
                values=(0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
                open=True,
                low=0.01,
                high=32,
            ),
            Param("block", int, 8, "side of a block", values=(4, 8), when="build"),
        ),
        positional="step",
        traits={"entropy": "required"},
        api=1,
    )


def spec(features, params):
    """Maps (C, H, W) of a known size, any number of them, and the blocks of ``block`` a side that are sent of them."""
    side, latent = params["block"], {}
    for name, tensor in features.items():
        if tensor.dtype != "float32" or len(tensor.shape) != 3 or None in tensor.shape:
            raise SpecMismatch(f"takes maps float32[CxHxW], {name} of {describe(features)} is none")
        latent[name] = TensorSpec(blocks(tensor.shape, side), "int32")
    return EncoderSpec(latent=latent, restored=features)


def blocks(shape, side):
    """The shape of maps in blocks: channels, rows of blocks, rows of a block, columns of blocks, columns of one."""
    channels, height, width = shape
    return channels, -(-height // side), side, -(-width // side), side
