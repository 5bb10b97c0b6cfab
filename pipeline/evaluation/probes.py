"""Trainers who train no network: a classifier on frozen embeddings, by scikit-learn. Embeddings are float32 (N, D), L2-normalised.

That is how most people build a recogniser today: take a network that knows faces already and compare what it gives.
"""

from __future__ import annotations

import numpy as np


def nearest_neighbour(train_embedding: np.ndarray, train_label: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """The label of the most similar training photo (cosine): int64 (M,)."""
    from sklearn.neighbors import KNeighborsClassifier

    return np.asarray(KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(train_embedding, train_label).predict(embedding))


def linear_svm(train_embedding: np.ndarray, train_label: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Labels by a linear support vector machine, one against the rest: int64 (M,)."""
    from sklearn.svm import LinearSVC

    return np.asarray(LinearSVC(C=1.0, random_state=0).fit(train_embedding, train_label).predict(embedding))


def linear_probe(train_embedding: np.ndarray, train_label: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Labels by multinomial logistic regression on standardised embeddings (a linear probe): int64 (M,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    return np.asarray(model.fit(train_embedding, train_label).predict(embedding))


def last_layer_refit(clean_embedding: np.ndarray, clean_label: np.ndarray, embedding: np.ndarray, *, photos: int, seed: int) -> np.ndarray:
    """Labels by a last layer refitted on at most `photos` clean photos of each identity, drawn by seed: int64 (M,).

    Deep feature reweighting (Kirichenko et al., ICLR 2023), turned on unlearnable data by Sandoval-Segura et al. (NeurIPS 2023): if a
    trained network's embeddings know the protected faces after all, a few clean photos are enough to show it.
    """
    generator = np.random.default_rng((seed, 0xDF2))
    chosen = [
        generator.choice(here, min(photos, len(here)), replace=False)
        for here in (np.flatnonzero(clean_label == label) for label in np.unique(clean_label))
    ]
    kept = np.concatenate(chosen)
    return linear_probe(clean_embedding[kept], clean_label[kept], embedding)
