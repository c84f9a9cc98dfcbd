"""A user's folder of ordinary faces: what a generator is trained on before it sees patients."""

from jaxface.data.folder import FolderBuilder, config_for

__all__ = ["FaceFolder", "config_for"]


class FaceFolder(FolderBuilder):
    """Photographs of faces from a folder with a manifest, without labels.

    `tfds.builder("face_folder", data_dir=..., config=config_for(FOLDER), file_format="array_record")`
    """
