"""The whole path, on a data set of 80 training images: distil, train, evaluate, gate."""


def test_x(student):
    pass
