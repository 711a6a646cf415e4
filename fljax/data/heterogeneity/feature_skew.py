"""Skews features by domain, a domain for each client: the ways are those of `skews`."""

from __future__ import annotations

from fljax.data.dataset import FederatedDataset
from fljax.data.heterogeneity.domains import Kind, with_domains
from fljax.data.heterogeneity.skew_names import named_skew
from fljax.data.heterogeneity.skews import Skew

FEATURES = Kind("feature_skew", "x", "features", "domain", "feature skew")


def with_feature_skew(
    dataset: FederatedDataset, feature_skew: str | Skew, seed: int = 0
) -> FederatedDataset:
    """Returns the dataset with features skewed by the domain of their client.

    Clients, those that are held out as well, are dealt evenly to the domains; the group "domain"
    says which is whose, and records report on each, `eval/groups/domain/...`. A test set that
    nobody owns is repeated, once in each domain, and "domain" is a group of rows as well.

    Args:
      dataset: Whose examples are arrays in memory; they are copied.
      feature_skew: Calls of `SKEWS` or of functions of one's own that return a `Skew`, one after
        another: "rotations(4), blur(1.0)" has a domain for each combination. Or a `Skew`.
      seed: Chooses the clients of a domain, and the noise.

    Raises:
      ValueError: If the text names no skew, the features are not what it needs, or the targets are
        of single pixels and would have to move with them.

    Example:
      >>> images = np.arange(16.0).reshape(4, 2, 2)
      >>> dataset = data.from_arrays(images, [0, 1, 0, 1], num_clients=4)
      >>> sorted(data.with_feature_skew(dataset, 'rotations(2)').groups['domain'].tolist())
      ['rotated_0', 'rotated_0', 'rotated_180', 'rotated_180']
    """
    skew = feature_skew if isinstance(feature_skew, Skew) else named_skew(feature_skew)
    return with_domains(dataset, skew, seed, FEATURES)
