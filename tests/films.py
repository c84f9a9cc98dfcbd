"""Short videos of rendered people: input with known truth for whatever reads videos."""

import dataclasses
import fractions
import functools

import av
import cv2
import numpy as np

from jaxface.phantom import render

SIDE = 160  # px of a frame
FPS = 10


@functools.cache
def still(seed: int = 0, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]: a person with room around; angles in degrees as `render.View` has them."""
    view = dataclasses.replace(
        render.draw_view(seed), yaw=yaw, pitch=pitch, roll=roll, zoom=0.62, noise=0.0
    )
    return render.render(render.draw_subject(seed), view, SIDE, supersample=1).image


def wall() -> np.ndarray:
    """Nobody is there."""
    down = np.linspace(110, 150, SIDE, dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(down[:, None, None], (SIDE, SIDE, 3)))


def pair() -> np.ndarray:
    """Two people side by side."""
    picture = wall().copy()
    half = SIDE // 2
    for left, seed in ((0, 0), (half, 3)):
        small = cv2.resize(still(seed), (half, half), interpolation=cv2.INTER_AREA)
        picture[half // 2 : half // 2 + half, left : left + half] = small
    return picture


def blurred(image: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def moved(image: np.ndarray, right: int, down: int) -> np.ndarray:
    matrix = np.float32([[1, 0, right], [0, 1, down]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def write(
    path,
    frames,
    *,
    fps: int = FPS,
    times=None,
    codec: str = "libx264",
    turn: int = 0,
    mirror: bool = False,
    aspect=None,
    movflags: str = "",
):
    """Writes a video; returns its path.

    Args:
      frames: uint8 [H, W, 3] each.
      times: s of each frame, where they are not 1 / fps apart.
      codec: "png" (in .mov) keeps every bit.
      turn: degrees counterclockwise by which the container tells players to turn the frames.
      mirror: whether it tells them to mirror the frames after that, left to right.
      aspect: width of a px by its height, as a Fraction.
      movflags: "faststart" puts the table of frames before the frames.
    """
    options = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.codec_context.thread_count = 1  # or the bytes depend on how many cores there are
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        base = fractions.Fraction(1, 1000 if times is not None else fps)
        stream.codec_context.time_base = base
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn or mirror:
            stream.set_display_rotation(turn, hflip=mirror)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts = number if times is None else round(1000 * times[number])
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
