"""The optimiser Muon, for lessons 02 and 04: every convolution takes a step that is equally long in all directions."""

import numpy as np

from skinlib.quiet import keras

ops = keras.ops

# Of the fifth-degree polynomial that moves the stretches of a matrix towards 1, five times.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(keras.optimizers.AdamW):
    """Muon for kernels of convolutions, AdamW for everything else. Lesson 02.

    Seen as a matrix, (height · width · filters in, filters out), the gradient of a kernel is long in a few directions
    and short in most: what many pictures have in common hides what few show. Muon averages gradients as momentum does
    and then makes the matrix `orthogonal`, so that all directions count alike. The first convolution, which reads the
    picture's colours, and a last one with a single filter step with AdamW, as its authors advise for first and last
    layers.

    further    how many times AdamW's learning rate a convolution steps
    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024). Keras' own class of the name
    leaves convolutions to AdamW, since it looks at weights of two dimensions only.
    """

    def __init__(self, *args, further: float = 10.0, momentum: float = 0.95, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.further, self.momentum = further, momentum

    def update_step(self, gradient, variable, learning_rate) -> None:
        if not of_hidden_convolution(variable.shape):
            super().update_step(gradient, variable, learning_rate)
            return
        mean = self._momentums[self._get_variable_index(variable)]
        self.assign(mean, self.momentum * mean + gradient)
        rows, columns = int(np.prod(variable.shape[:-1])), variable.shape[-1]
        # Nesterov's form: as if the newest gradient came a second time.
        step = orthogonal(ops.reshape(self.momentum * mean + gradient, (rows, columns)))
        size = self.further * max(1, columns / rows) ** 0.5 * ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, ops.reshape(size * step, variable.shape))

    def get_config(self) -> dict:
        return super().get_config() | {"further": self.further, "momentum": self.momentum}


def of_hidden_convolution(shape: tuple[int, ...]) -> bool:
    """Whether weights are the kernel of a convolution that neither reads colours nor gives a single score."""
    return len(shape) == 4 and shape[2] > 3 and shape[3] > 1


def orthogonal(matrix: keras.KerasTensor) -> keras.KerasTensor:
    """The same directions, all stretched about equally: float (rows, columns) to the same shape.

    A matrix turns, stretches and turns again (its singular value decomposition); what comes back has stretches between
    0.7 and 1.2 in place of very different ones. Only the few that were next to nothing stay shorter. The polynomial
    needs products only, where the decomposition itself would take longer than the rest of a training step.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else ops.transpose(matrix)
    x = x / (ops.norm(x) + 1e-7)  # no stretch is above 1 now, where the polynomial works
    for _ in range(ROUNDS):
        square = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    return x if wide else ops.transpose(x)
