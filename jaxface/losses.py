"""Per-example losses, each with its paper and equation; the caller takes means and weighs them."""

import jax
import jax.numpy as jnp


def generator_nonsaturating(logits_fake: jax.Array) -> jax.Array:
    """-log sigmoid(D(G(z))) = softplus(-logits): the generator wants its images called real.

    Goodfellow et al. 2014 (arXiv 1406.2661), section 3, the non-saturating form. Any shape.

    >>> float(generator_nonsaturating(jnp.zeros([])))  # log 2
    0.6931471824645996
    """
    return jax.nn.softplus(-logits_fake)


def discriminator_logistic_real(logits: jax.Array) -> jax.Array:
    """-log sigmoid(D(x)) = softplus(-logits) on real images. 1406.2661, equation 1. Any shape."""
    return jax.nn.softplus(-logits)


def discriminator_logistic_fake(logits: jax.Array) -> jax.Array:
    """-log(1 - sigmoid(D(G(z)))) = softplus(logits) on fakes. 1406.2661, equation 1. Any shape."""
    return jax.nn.softplus(logits)


def r1_penalty(grad_images: jax.Array) -> jax.Array:
    """Squared norm of the gradient of D's logits with respect to real images. [N, ...] -> [N]

    Mescheder et al. 2018 (arXiv 1801.04406), equation 9; the caller multiplies by gamma / 2.
    """
    grad_images = grad_images.astype(jnp.promote_types(grad_images.dtype, jnp.float32))
    return jnp.sum(jnp.square(grad_images), range(1, grad_images.ndim))


def least_squares_real(scores: jax.Array) -> jax.Array:
    """(D(x) - 1)^2, of the discriminator on real images and of the generator on its own. Any shape.

    Mao et al. 2017 (arXiv 1611.04076), equation 9: a = 0, b = c = 1, without its factor of 1/2, as
    CycleGAN has it (arXiv 1703.10593, section 4).

    >>> least_squares_real(jnp.array([1.0, 0.0, 3.0])).tolist()
    [0.0, 1.0, 4.0]
    """
    return jnp.square(scores - 1)


def least_squares_fake(scores: jax.Array) -> jax.Array:
    """D(G(z))^2, of the discriminator on fakes. 1611.04076, equation 9, as above. Any shape."""
    return jnp.square(scores)


def wasserstein_real(scores: jax.Array) -> jax.Array:
    """-D(x), of the critic on real images and of the generator on its own. Any shape.

    Arjovsky et al. 2017 (arXiv 1701.07875), algorithm 1.
    """
    return -scores


def wasserstein_fake(scores: jax.Array) -> jax.Array:
    """D(G(z)), of the critic on fakes. 1701.07875, algorithm 1. Any shape."""
    return scores


def gradient_penalty(grad_images: jax.Array) -> jax.Array:
    """(|gradient| - 1)^2 of the critic's scores at points between real and fake. [N, ...] -> [N]

    Gulrajani et al. 2017 (arXiv 1704.00028), equation 3; the caller mixes real and fake images and
    multiplies by lambda. The gradient of this is 0, not NaN, where that gradient is 0.

    >>> gradient_penalty(jnp.array([[3.0, 4.0], [0.6, 0.8]])).tolist()
    [16.0, 0.0]
    """
    return jnp.square(jnp.sqrt(r1_penalty(grad_images) + 1e-16) - 1)


def l1(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean absolute difference of each example. [N, ...], [N, ...] -> [N]

    pix2pix's distance to the target (arXiv 1611.07004, equation 3), CycleGAN's to the image gone
    there and back and to the one already there (arXiv 1703.10593, equation 2 and section 5.2).

    >>> l1(jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, -3.0]])).tolist()
    [1.0, 1.5]
    """
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return jnp.mean(jnp.abs(a.astype(dtype) - b.astype(dtype)), range(1, a.ndim))


def detail(a: jax.Array, b: jax.Array, block: int) -> jax.Array:
    """Mean squared difference of each example, less its mean in every block. [N, H, W, C] -> [N]

    What is smaller than a block counts, brightness and shading do not; squares, because a few dark px
    are what a mean of absolute differences (and so a median) passes over. Ours. H and W are multiples
    of `block`.

    >>> a = jnp.zeros([1, 2, 2, 1]).at[0, 0, 0, 0].set(2.0)
    >>> detail(a, jnp.zeros([1, 2, 2, 1]), 2).tolist(), detail(a + 5, a, 2).tolist()
    ([0.75], [0.0])
    """
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    apart = a.astype(dtype) - b.astype(dtype)
    n, height, width, channels = apart.shape
    blocks = apart.reshape(n, height // block, block, width // block, block, channels)
    fine = blocks - blocks.mean((2, 4), keepdims=True)
    return jnp.mean(jnp.square(fine), range(1, fine.ndim))
