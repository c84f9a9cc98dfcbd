"""Rendered people without a cleft: what a generator is trained on before it sees patients."""

from jaxface.data.phantom import PhantomBuilder, config_for

__all__ = ["PhantomFaces", "config_for"]


class PhantomFaces(PhantomBuilder):
    """Rendered faces of people without a cleft, severity 0.

    `tfds.builder("phantom_faces", data_dir=..., config=config_for(64), file_format="array_record")`
    """

    PREFIX = "N"
    NUM_SUBJECTS = 4096
