"""Rendered patients with cleft lip, as many as CleftGAN's photographs (arXiv 2310.07969)."""

from jaxface.data.phantom import PhantomBuilder, config_for

__all__ = ["PhantomCleft", "config_for"]


class PhantomCleft(PhantomBuilder):
    """Rendered faces with a stylised one-sided cleft lip; side and severity are exact.

    `tfds.builder("phantom_cleft", data_dir=..., config=config_for(64), file_format="array_record")`
    """

    CLEFT = True
    PREFIX = "P"
    NUM_SUBJECTS = 514
