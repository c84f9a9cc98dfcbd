"""Files that an attacker would send. Each function writes one and gives words its refusal holds.

Those that execute would make the canary: a file named `CANARY` in the folder that the reader works in.
"""

import functools
import pathlib
import pickle
import struct
import zipfile
import zlib

import forge
import numpy as np

from jaxface.models import stylegan3

CANARY = "canary"
COMMAND = f"touch {CANARY}"
CODE = f"open('{CANARY}', 'w').close()"
GOOD = np.arange(6, dtype=np.float32)
FILES = []


def hostile(*words: str):
    """Registers a writer of bytes (or of the file itself, then returning None)."""

    def register(write):
        FILES.append((write.__name__, write, words))
        return write

    return register


def good(**more: bytes) -> bytes:
    return forge.table({"x": forge.embedded_tensor(GOOD)} | more)


# ---- the twelve kinds ---------------------------------------------------------------------------


@hostile("builtins.exec")
def builtin_exec(path):
    return forge.whole(good(y=forge.call(forge.name("builtins", "exec"), forge.value(CODE))))


@hostile("os.system")
def os_system(path):
    return f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode()


@hostile("posix.system")
def os_system_in_an_archive(path):
    piece = forge.call(forge.name("posix", "system"), forge.value(COMMAND))
    forge.write_archive(path, good(y=piece), {})


@hostile("os.system")
def os_system_in_a_legacy_file(path):
    piece = forge.call(forge.name("os", "system"), forge.value(COMMAND))
    return forge.legacy_bytes(piece, {})


@hostile("builtins.getattr")
def getattr_chain(path):
    get = forge.name("builtins", "getattr")
    module = forge.call(forge.name("builtins", "__import__"), forge.value("os"))
    return forge.whole(
        forge.call(forge.call(get, module, forge.value("system")), forge.value(COMMAND))
    )


@hostile("torch._utils._rebuild_tensor_v2.__globals__")
def chain_of_dots(path):
    reach = forge.new_name("torch._utils", "_rebuild_tensor_v2.__globals__.__builtins__.exec")
    return forge.whole(forge.call(reach, forge.value(CODE)))


@hostile("importlib.import_module")
def importing(path):
    return forge.whole(
        forge.call(forge.name("importlib", "import_module"), forge.value("antigravity"))
    )


@hostile("os.system")
def nested_pickle(path):
    """In the bytes of a storage, which are a stream of their own."""
    inner = forge.legacy_bytes(forge.call(forge.name("os", "system"), forge.value(COMMAND)), {})
    held = forge.call(forge.name("torch.storage", "_load_from_bytes"), forge.raw(inner))
    return forge.whole(forge.table({"x": forge.tensor(held, 0, (1,), (1,))}))


@hostile("_pickle.loads")
def nested_loads(path):
    inner = pickle.dumps(GOOD)
    return forge.whole(forge.call(forge.name("_pickle", "loads"), forge.raw(inner)))


@hostile("a dtype with fields")
def numpy_build_trick(path):
    """The state of a dtype, of which NumPy believes fields, sizes and objects."""
    dtype = forge.call(forge.name("numpy", "dtype"), forge.value("f4"), *map(forge.value, (0, 1)))
    state = forge.value((3, "|", None, ("a",), {"a": 1}, 8, 1, 63))
    return forge.whole(good(y=dtype + state + b"b"))


@hostile("arrays of dtype O8")
def numpy_array_of_objects(path):
    return pickle.dumps({"x": np.array([COMMAND, None], object)}, 2)


@hostile("an array of 4,398,046,511,104 bytes in 4")
def numpy_build_of_a_huge_array(path):
    dtype = forge.call(forge.name("numpy", "dtype"), forge.value("f4"), *map(forge.value, (0, 1)))
    array = forge.call(
        forge.name("numpy.core.multiarray", "_reconstruct"),
        *(forge.name("numpy", "ndarray"), forge.value((0,)), forge.raw(b"b")),
    )
    state = forge.row(
        forge.value(1), forge.value((1 << 40,)), dtype, forge.value(False), forge.raw(b"1234")
    )
    return forge.whole(forge.table({"x": array + state + b"b"}))


@hostile("an array of a class of its own")
def numpy_reconstruct_of_another_class(path):
    array = forge.call(
        forge.name("numpy.core.multiarray", "_reconstruct"),
        *(forge.name("numpy", "dtype"), forge.value((0,)), forge.raw(b"b")),
    )
    return forge.whole(forge.table({"x": array}))


@hostile("G (Generator) has no constructor arguments")
def embedded_source(path):
    """What NVIDIA's loader would run as a module."""
    return forge.snapshot({"G": forge.persistent("Generator", forge.table({}), CODE)})


@hostile("it asks for torch_utils.persistence._reconstruct_persistent_obj")
def embedded_source_in_an_archive(path):
    piece = forge.persistent("Generator", forge.table({}), CODE)
    forge.write_archive(path, good(y=piece), {})


@hostile("a persistent object that is no class")
def embedded_module(path):
    meta = {"type": "module", "version": 6, "module_src": CODE, "class_name": "G", "state": {}}
    what = forge.name("torch_utils.persistence", "_reconstruct_persistent_obj")
    return forge.whole(forge.table({"G": forge.call(what, forge.value(meta))}))


@hostile("points out of the archive")
def zip_slip(path):
    forge.write_archive(path, good(), {}, {f"../{CANARY}": "x"})


@hostile("points out of the archive")
def zip_slip_absolute(path):
    forge.write_archive(path, good(), {}, {str(path.with_name(CANARY)): "x"})


@hostile("entry archive/data/../../../etc/passwd is missing")
def key_of_a_storage_out_of_the_archive(path):
    held = forge.storage("ByteStorage", "../../../etc/passwd", 100)
    forge.write_archive(path, forge.table({"x": forge.tensor(held, 0, (100,), (1,))}), {})


@hostile("its memo is huge (entry 4,294,967,295)")
def huge_memo(path):
    return b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."


@hostile("more than 500,000 steps")
def many_memos(path):
    return b"\x80\x04" + b"]\x94" * 300_000 + b"."


@hostile("nested without end")
def recursion_in_lists(path):
    return b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."


@hostile("nested without end")
def recursion_in_itself(path):
    return b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."


@hostile("nested without end")
def recursion_of_modules(path):
    """Modules in modules, 30,000 deep, every one an object of ours."""
    meta = {"type": forge.value("class"), "class_name": forge.value("Generator")}
    start = forge.name("torch_utils.persistence", "_reconstruct_persistent_obj") + b"}("
    start += b"".join(forge.value(k) + v for k, v in meta.items()) + forge.value("state")
    start += b"}" + forge.value("_init_kwargs") + forge.value({"z_dim": 4}) + b"s"
    start += forge.value("_modules") + b"}" + forge.value("m")
    bottom = forge.persistent("Generator", forge.table({}))
    return forge.whole(
        b"}" + forge.value("G") + start * 12_000 + bottom + b"ssu\x85R" * 12_000 + b"s"
    )


@hostile("nested without end")
def billion_laughs(path):
    piece = b"](K\x01K\x02e\x94"
    for level in range(25):
        piece += b"0](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"e\x94"
    return b"\x80\x04" + piece + b"."


@hostile("truncated or damaged at byte")
def truncated(path):
    return forge.whole(good())[:-20]


@hostile("truncated archive")
def truncated_archive(path):
    forge.write_archive(path, good(), {"0": GOOD.tobytes() * 100})
    path.write_bytes(path.read_bytes()[:-100])


@hostile("a storage of 20 bytes is declared as 6 numbers")
def truncated_legacy(path):
    piece = forge.table({"x": forge.plain_tensor(GOOD, "0")})
    return forge.legacy_bytes(piece, {"0": GOOD})[:-4]


@hostile("a storage of 24 bytes is declared as 1,099,511,627,776 numbers")
def wrong_storage_size(path):
    held = forge.storage("FloatStorage", "0", 1 << 40)
    piece = forge.table({"x": forge.tensor(held, 0, (1 << 40,), (1,))})
    forge.write_archive(path, piece, {"0": GOOD.tobytes()})


@hostile("a storage of 6 numbers is declared as 7")
def wrong_storage_size_legacy(path):
    held = forge.tensor(forge.storage("FloatStorage", "0", 7), 0, (7,), (1,))
    return forge.legacy_bytes(forge.table({"x": held}), {"0": GOOD})


@hostile("a tensor of 1,099,511,627,776 numbers in a storage of 6")
def tensor_beyond_its_storage(path):
    held = forge.storage("FloatStorage", "0", 6)
    piece = forge.table({"x": forge.tensor(held, 0, (1 << 40,), (1,))})
    forge.write_archive(path, piece, {"0": GOOD.tobytes()})


# ---- and what else we thought of ----------------------------------------------------------------


@hostile("in a storage of 6")
def tensor_that_repeats_one_number(path):
    held = forge.storage("FloatStorage", "0", 6)
    piece = forge.table({"x": forge.tensor(held, 0, (1 << 30, 1 << 10), (0, 0))})
    forge.write_archive(path, piece, {"0": GOOD.tobytes()})


@hostile("far more memory than it has bytes")
def overlapping_views(path):
    """A thousand different views of one storage, each nearly as large as the file."""
    held = forge.storage("ByteStorage", "0", 4 << 20)
    size = (4 << 20) - 1000
    items = {str(i): forge.tensor(held, i, (size,), (1,)) for i in range(1000)}
    forge.write_archive(path, forge.table(items), {"0": bytes(4 << 20)})


@hostile("far more memory than it has bytes")
def nested_stream_read_again_and_again(path):
    data = np.zeros(1 << 20, np.uint8)
    inner = forge.legacy_bytes(forge.storage("ByteStorage", "0", data.size), {"0": data})
    load = forge.name("torch.storage", "_load_from_bytes")
    once = b"h\x00h\x01\x85R0"
    return b"\x80\x02" + load + b"q\x00" + forge.raw(inner) + b"q\x01" + once * 100_000 + b"."


@hostile("unpacks to")
def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("archive/data.pkl", forge.whole(good()))
        for i in range(10):
            file.writestr(f"archive/data/{i}", bytes(100 << 20))


@hostile("unpacks to")
def zip_bomb_of_overlapping_entries(path):
    """One packed megabyte under two thousand names."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(1 << 20)) + packer.flush()
    crc = zlib.crc32(bytes(1 << 20))
    sizes = struct.pack("<3I", crc, len(packed), 1 << 20)
    local = b"PK\3\4" + struct.pack("<5H", 20, 0, 8, 0, 0) + sizes + struct.pack("<2H", 1, 0) + b"x"
    directory = b""
    for i in range(2000):
        name = f"archive/data/{i}".encode() if i else b"archive/data.pkl"
        directory += b"PK\1\2" + struct.pack("<6H", 20, 20, 0, 8, 0, 0) + sizes
        directory += struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, 0) + name
    start = len(local) + len(packed)
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 2000, 2000, len(directory), start, 0)
    return local + packed + directory + end


@hostile("is damaged: size or checksum differ")
def entry_that_is_larger_than_it_says(path):
    forge.write_archive(path, good(), {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(60 << 20))
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\1\2")
    struct.pack_into("<I", data, at + 24, 100)
    return bytes(data)


@hostile("damaged archive: its directory")
def million_entries(path):
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 65535, 65535, 0xFFFFFF, 0, 0)
    return b"PK\3\4archive/data.pkl" + bytes(1 << 16) + end


@hostile("a key that is a int")
def keys_that_collide(path):
    """Whole multiples of 2**61 - 1 all have the hash 0: a dictionary of them takes a day."""
    keys = b"".join(pickle.dumps(i * (2**61 - 1), 2)[2:-1] + b"N" for i in range(1, 100_000))
    return b"\x80\x02}(" + keys + b"u."


@hostile("a key that is a tuple")
def keys_that_are_tuples(path):
    return b"\x80\x02}K\x01K\x02\x86Ns."


@hostile("a name of 1,048,576 characters")
def name_without_end(path):
    """Over many short ones: their paths would take gigabytes."""
    return b"\x80\x02}" + forge.value("k" * (1 << 20)) + forge.table({"a": b"N"}) + b"s."


@hostile("a name beyond all measure")
def names_in_names(path):
    piece = forge.embedded_tensor(GOOD)
    for _ in range(20):
        piece = forge.table({"k" * 900: piece})
    return forge.whole(piece)


@hostile("a name of 5,000,000 characters")
def equal_names_compared_again_and_again(path):
    """Equal texts at two places: to see that they are equal, all of both is read."""
    text = b"X" + struct.pack("<I", 5_000_000) + b"k" * 5_000_000
    return b"\x80\x02}q\x00" + text + b"q\x01Ns" + text + b"q\x020" + b"h\x02Ns" * 100_000 + b"."


@hostile("a call with 100,000 arguments")
def arguments_copied_again_and_again(path):
    make = forge.name("torch._utils", "_rebuild_parameter") + b"q\x00"
    arguments = b"(" + forge.embedded_tensor(GOOD) + b"N" * 99_999 + b"tq\x01"
    return b"\x80\x02" + make + arguments + b"h\x00h\x01R0" * 90_000 + b"."


@hostile("far more memory than it has bytes")
def text_made_bytes_again_and_again(path):
    """Data of an array as text, which the state of an array has in old protocols."""
    dtype = forge.call(forge.name("numpy", "dtype"), forge.value("u1"), *map(forge.value, (0, 1)))
    array = forge.call(
        forge.name("numpy.core.multiarray", "_reconstruct"),
        *(forge.name("numpy", "ndarray"), forge.value((0,)), forge.raw(b"b")),
    )
    text = b"X" + struct.pack("<I", 5_000_000) + b"k" * 5_000_000
    state = forge.row(forge.value(1), forge.value((5_000_000,)), dtype, forge.value(False), text)
    return (
        b"\x80\x02" + state + b"r\x00\x01\x00\x000" + array + b"j\x00\x01\x00\x00b" * 90_000 + b"."
    )


@hostile("an empty array of sides beyond all measure")
def empty_tensor_of_endless_sides(path):
    held = forge.storage("FloatStorage", "0", 6)
    piece = forge.tensor(held, 0, (0, 1 << 40, 1 << 40), (0, 0, 0))
    forge.write_archive(path, forge.table({"x": piece}), {"0": GOOD.tobytes()})


@hostile("strength p is no probability")
def strength_that_is_complex(path):
    state = {"_buffers": forge.table({"p": forge.embedded_tensor(np.complex64([1j]))})}
    pipe = forge.persistent("AugmentPipe", forge.table(state))
    found = forge.network("Generator", {"img_resolution": 16}, {"a": GOOD})
    return forge.whole(forge.table({"G": found, "augment_pipe": pipe}))


@hostile("arguments that have no names")
def positional_arguments_that_are_none(path):
    state = {"_init_args": forge.value(5), "_init_kwargs": forge.value({"z_dim": 4})}
    return forge.snapshot({"G": forge.persistent("Generator", forge.table(state))})


@hostile("G.a holds no floating-point numbers")
def weights_that_are_no_numbers(path):
    found = forge.network("Generator", {"img_resolution": 16}, {"a": np.array([True])})
    return forge.snapshot({"G": found})


@hostile("truncated or damaged")
def string_longer_than_the_file(path):
    return b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"abc."


@hostile("an integer of 2147483647 bytes")
def integer_without_end(path):
    return b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + bytes(100) + b"."


@hostile("damaged at byte")
def integer_in_text_without_end(path):
    return b"I" + b"9" * (1 << 20) + b"\n."


@hostile("more than 500,000 steps")
def short_lines_without_end(path):
    """Each line is looked for; no search may go through what is left of the file."""
    return b"(" + b"S''\n0" * 300_000 + b"."


@hostile("more than 500,000 steps")
def list_copied_again_and_again(path):
    make = forge.name("collections", "OrderedDict")
    pair = b"](X\x01\x00\x00\x00aNe"
    pairs = b"](" + pair * 20_000 + b"e\x85q\x01"
    return b"\x80\x02" + make + b"q\x00" + pairs + b"h\x00h\x01R0" * 100_000 + b"."


@hostile("it calls numpy.ndarray")
def allowed_name_called_where_it_may_not(path):
    return forge.whole(forge.call(forge.name("numpy", "ndarray"), forge.value((1 << 40,))))


@hostile("damaged at byte")
def allowed_dictionary_with_arguments(path):
    return forge.whole(
        forge.table({"G": forge.call(forge.name("dnnlib.util", "EasyDict"), forge.value({}))})
    )


@hostile("makes an instance of collections.OrderedDict")
def instance_of_an_allowed_name(path):
    return b"(icollections\nOrderedDict\n."


@hostile("the extension registry")
def extension_registry(path):
    return b"\x80\x02\x82\x01."


@hostile("a persistent id in text")
def persistent_id_in_text(path):
    return b"Pos.system\n."


@hostile("refers to objects outside of it")
def persistent_id_without_an_archive(path):
    return forge.whole(forge.storage("FloatStorage", "0", 6))


@hostile("it asks for os?[2J?[31m.system?OK")
def message_that_writes_to_the_terminal(path):
    return forge.whole(forge.new_name("os\x1b[2J\x1b[31m", "system\nOK"))


@hostile("a state for a list")
def attributes_of_a_list(path):
    return b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb."


@hostile("G: img_resolution=1048576 makes no network")
def network_without_end(path):
    return forge.snapshot({"G": forge.network("Generator", {"img_resolution": 1 << 20}, {})})


def generator(**kwargs):
    base = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 2048, "img_channels": 1}
    return base | {"channel_base": 64, "channel_max": 4} | kwargs


@hostile("taps")
def filters_without_end(path):
    """A radial filter is as many taps wide as high, and designed anew at each look."""
    kwargs = generator(num_layers=2, num_critical=0, filter_size=64, lrelu_upsampling=8)
    kwargs |= {"first_cutoff": 900, "first_stopband": 4096, "last_stopband_rel": 0.01}
    kwargs |= {"use_radial_filters": True}
    layers = stylegan3.from_kwargs(kwargs).plan.layers
    assert max(layer.down_taps for layer in layers if layer.down_radial) > 2000
    arrays = {f"synthesis.{layer.name}.weight": np.zeros(1, np.float32) for layer in layers}
    return forge.snapshot({"G": forge.network("Generator", kwargs, arrays)})


@hostile("arguments without end")
def arguments_without_end(path):
    laughs: list = [1, 2]
    for _ in range(6):
        laughs = [laughs] * 8
    return forge.snapshot({"G": forge.network("Generator", {"img_resolution": laughs}, {})})


@functools.cache
def write_all(folder: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Writes every file into `folder`; {name: words of its refusal}."""
    for name, write, _ in FILES:
        data = write(folder / name)
        if data is not None:
            (folder / name).write_bytes(data)
    return {name: words for name, _, words in FILES}
