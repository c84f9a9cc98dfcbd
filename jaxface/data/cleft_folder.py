"""A user's folder of patients with cleft lip (the 514 photographs of CleftGAN, arXiv 2310.07969)."""

from jaxface.data.folder import FolderBuilder, config_for

__all__ = ["CleftFolder", "config_for"]


class CleftFolder(FolderBuilder):
    """Photographs of faces from a folder whose manifest tells side and severity of the cleft.

    `tfds.builder("cleft_folder", data_dir=..., config=config_for(FOLDER), file_format="array_record")`
    """

    LABELS = True
