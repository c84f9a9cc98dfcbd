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
