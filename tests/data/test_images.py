import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from jaxface.data import images
from jaxface.data.images import ImageError, Limits, list_images, read_gray, read_image


def smooth(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 5 * y, 2 * x + 2 * y], axis=-1).astype(np.uint8)


def save(folder, name, image, **options):
    path = folder / name
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    "suffix,error", [("png", 0), ("bmp", 0), ("tif", 0), ("jpg", 6), ("webp", 12)]
)
def test_formats(tmp_path, suffix, error):
    path = save(tmp_path, f"a.{suffix}", smooth(), **({"quality": 95} if error else {}))
    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.shape == (40, 60, 3)
    assert np.abs(pixels.astype(int) - smooth()).max() <= error + (error > 0) * 10
    assert np.abs(pixels.astype(int) - smooth()).mean() <= error / 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, "a.png", smooth(), exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)


def test_gray_palette_alpha_and_16_bits(tmp_path):
    gray = smooth()[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path, "l.png", gray)), expected)
    deep = gray.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(save(tmp_path, "16.png", deep)), expected)
    np.testing.assert_array_equal(read_image(save(tmp_path, "16.tif", deep)), expected)
    palette = Image.fromarray(smooth()).quantize(16)
    found = read_image(save(tmp_path, "p.png", palette))
    np.testing.assert_array_equal(found, np.asarray(palette.convert("RGB")))
    clear = np.dstack([smooth(), np.full((40, 60), 255, np.uint8)])
    clear[:10, :, 3] = 0
    found = read_image(save(tmp_path, "a.png", clear))
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:], smooth()[10:])
    with pytest.raises(ImageError, match="32 bits"):
        read_image(save(tmp_path, "f.tif", gray.astype(np.float32)))


def test_cmyk(tmp_path):
    path = save(tmp_path, "c.jpg", Image.fromarray(smooth()).convert("CMYK"), quality=95)
    assert np.abs(read_image(path).astype(int) - smooth()).mean() < 8


def test_color_profile_becomes_srgb(tmp_path):
    linear = ImageCms.createProfile("XYZ")  # a profile whose numbers mean something else than sRGB
    lab = ImageCms.ImageCmsProfile(linear).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(
        read_image(save(tmp_path, "s.png", smooth(), icc_profile=srgb)), smooth()
    )
    np.testing.assert_array_equal(
        read_image(save(tmp_path, "b.png", smooth(), icc_profile=b"broken")), smooth()
    )
    swapped = _swapped_primaries(srgb)
    found = read_image(save(tmp_path, "w.png", smooth(), icc_profile=swapped)).astype(int)
    assert np.abs(found - smooth()[..., ::-1]).max() <= 3
    assert read_image(save(tmp_path, "x.png", smooth(), icc_profile=lab)).shape == (40, 60, 3)


def _swapped_primaries(profile: bytes) -> bytes:
    """sRGB with its red and blue exchanged, under another name."""
    data = bytearray(profile)
    (count,) = struct.unpack(">I", data[128:132])
    at = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    for one, other in ((b"rXYZ", b"bXYZ"),):
        a, b = at[one], at[other]
        data[a + 4 : a + 12], data[b + 4 : b + 12] = data[b + 4 : b + 12], data[a + 4 : a + 12]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def _png_header(width, height):
    chunk = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "width,height,reason",
    [
        (12000, 9000, "12000x9000 px is over 40 Mpx"),
        (9000, 100, "9000x100 px is over 8192 px"),
        (60000, 60000, "more px than 40 Mpx"),
    ],
)
def test_bombs_are_refused_by_their_header(tmp_path, monkeypatch, width, height, reason):
    (tmp_path / "a.png").write_bytes(_png_header(width, height))
    monkeypatch.setattr(images, "_to_rgb", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(tmp_path / "a.png")
    assert "a.png" in str(caught.value) and "a.png" not in caught.value.reason


def test_truncated_at_every_length(tmp_path):
    for suffix in ("jpg", "png"):
        whole = save(tmp_path, f"a.{suffix}", smooth(200, 300)).read_bytes()
        for length in (0, 1, 10, 100, len(whole) // 4, len(whole) // 2, len(whole) - 200):
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(ImageError):
                read_image(tmp_path / "cut")
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "cut")


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "webp", "tif", "bmp"):
        whole = np.frombuffer(save(tmp_path, f"a.{suffix}", smooth()).read_bytes(), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            at = rng.integers(0, min(len(whole), 200), 6)
            broken[at] = rng.integers(0, 256, 6)
            (tmp_path / "b").write_bytes(broken.tobytes())
            try:
                assert read_image(tmp_path / "b").shape[2] == 3
            except ImageError as error:
                assert error.reason


def test_other_refusals(tmp_path):
    (tmp_path / "t.jpg").write_text("not an image")
    (tmp_path / "e.jpg").write_bytes(b"")
    save(tmp_path, "g.gif", smooth())
    frames = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    frames[0].save(tmp_path / "m.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "m.tif", save_all=True, append_images=frames[1:])
    save(
        tmp_path, "big.png", np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    )
    for name, reason in {
        "t.jpg": "no readable",
        "e.jpg": "empty",
        "g.gif": "no readable",
        "m.png": "2 frames",
        "m.tif": "2 frames",
        "absent.png": "No such file",
        ".": "not a file",
    }.items():
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="MB is over"):
        read_image(tmp_path / "big.png", Limits(file_bytes=1000))


def test_main_picture_of_a_phone_file(tmp_path):
    frames = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth()).mean() < 6


def test_list_images(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "labels.csv", ".hidden/x.png", "._b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list_images(tmp_path) == ["a.webp", "b/1.png", "b/2.JPG"]


def test_only_pixels_leave(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "patient Yamada"
    path = save(tmp_path, "a.jpg", smooth(), exif=exif, comment=b"patient Yamada")
    assert b"Yamada" in path.read_bytes()
    out = io.BytesIO()
    Image.fromarray(read_image(path)).save(out, format="PNG")
    assert b"Yamada" not in out.getvalue()


def _gray_profile(gamma):
    """A minimal ICC profile of a gray display."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags, at = b"", 128 + 4 + 2 * 12
    for name, body in ((b"wtpt", white), (b"kTRC", curve)):
        tags, at = tags + name + struct.pack(">II", at, len(body)), at + len(body)
    size = struct.pack(">I", at)
    head = size + b"\0\0\0\0\x04\x30\0\0mntrGRAYXYZ ".ljust(32, b"\0") + b"acsp".ljust(32, b"\0")
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 2) + tags + white + curve


def test_gray_of_8_and_16_bits_agree(tmp_path):
    gray = smooth()[..., 1]
    assert gray.max() == 195
    deep = gray.astype(np.uint16) * 257
    with_profile = save(tmp_path, "p.png", gray, icc_profile=_gray_profile(1.0))
    assert read_image(with_profile)[30, 30, 0] > gray[30, 30] + 20  # eyes see it brighter
    for path in (
        save(tmp_path, "8.png", gray),
        with_profile,
        save(tmp_path, "16.png", deep),
        save(tmp_path, "16.tif", deep),
        save(tmp_path, "rgb.png", np.repeat(gray[..., None], 3, axis=-1)),
        save(tmp_path, "a.png", np.dstack([gray, np.full_like(gray, 255)])),
        save(tmp_path, "low.png", deep + np.uint16(100)),  # rounds down
    ):
        found, note = read_gray(path)
        assert found.dtype == np.uint8 and not note, path
        np.testing.assert_array_equal(found, gray)
    dark = save(tmp_path, "12.png", deep // 16)
    for read in (read_gray, read_image):
        with pytest.raises(ImageError, match="12.png.*16 bits a pixel of which 12 are used"):
            read(dark)


def test_white_is_zero_in_both_depths(tmp_path):
    gray = smooth()[..., 1]
    shallow = save(tmp_path, "8.tif", gray, tiffinfo={262: 0})  # which Pillow turns round itself
    deep = save(tmp_path, "16.tif", 65535 - gray.astype(np.uint16) * 257, tiffinfo={262: 0})
    for path in (shallow, deep):
        assert Image.open(path).tag_v2[262] == 0
        np.testing.assert_array_equal(read_gray(path)[0], gray)
        np.testing.assert_array_equal(read_image(path)[..., 2], gray)


def test_colors_in_a_gray_file(tmp_path):
    gray = np.repeat(smooth()[..., 1:2], 3, axis=-1)
    stamped = gray.copy()
    stamped[:6, :10] = (250, 20, 20)  # 2.5 % of the px
    found, note = read_gray(save(tmp_path, "s.png", stamped))
    assert "luminance" in note
    np.testing.assert_array_equal(found[6:], gray[6:, :, 0])
    assert found[0, 0] == round(0.299 * 250 + 0.701 * 20)
    stamped[:6, :50] = (250, 20, 20)
    with pytest.raises(ImageError, match=r"c.png: 12% of it is colored.*name the right file"):
        read_gray(save(tmp_path, "c.png", stamped))
    violet = gray * np.array([0.8, 0.6, 1.0])
    with pytest.raises(ImageError, match="is colored"):
        read_gray(save(tmp_path, "v.png", violet.astype(np.uint8)))


def test_gray_is_turned_and_limited_like_color(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    gray = smooth()[..., 1]
    path = save(tmp_path, "a.png", gray, exif=exif)
    np.testing.assert_array_equal(read_gray(path)[0], np.rot90(gray, -1))
    (tmp_path / "b.png").write_bytes(_png_header(12000, 9000))
    with pytest.raises(ImageError, match="12000x9000 px is over 40 Mpx"):
        read_gray(tmp_path / "b.png")
