"""What watches a training."""

import numpy as np
import tf_keras

from models.callbacks import BestEpoch


def test_the_weights_of_the_best_epoch_are_kept_and_travel_in_a_checkpoint() -> None:
    network = tf_keras.Sequential([tf_keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    best = BestEpoch("val_loss", patience=2)
    best.set_model(network)
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        network.set_weights([np.array([[float(epoch)]])])
        best.on_epoch_end(epoch, {"val_loss": loss})
    again = BestEpoch("val_loss", patience=2)
    again.deserialize(best.serialize())
    for kept in (best, again):
        assert kept.chosen == 1
        assert kept.weights[0].item() == 1.0
        assert not kept.is_over
    best.on_epoch_end(3, {"val_loss": 2.0})
    assert best.is_over
