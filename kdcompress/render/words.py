"""Numbers as people read them. Rates become percent here and nowhere else."""

from kdcompress.report import Rate


def percent(rate: Rate) -> str:
    """A rate with its 95% interval.

    >>> percent(Rate(value=0.6, low=0.569, high=0.631, n=1000))
    '60.0% [56.9, 63.1]'
    """
    return f"{rate.value:.1%} [{rate.low * 100:.1f}, {rate.high * 100:.1f}]"


def whole_percent(rate: float) -> str:
    """A rate in a sentence or a picture.

    >>> whole_percent(0.524)
    '52%'
    """
    return f"{rate:.0%}"


def tenths_of_percent(rate: float) -> str:
    """A rate that was measured on a few hundred images, without its interval.

    >>> tenths_of_percent(0.9583)
    '95.8%'
    """
    return f"{rate:.1%}"


def count(number: float) -> str:
    """A large count with its unit.

    >>> count(123734), count(1_200_000), count(812)
    ('124k', '1.20M', '812')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            return (
                f"{scaled:.0f}{unit}"
                if scaled >= 100
                else f"{scaled:.3g}{unit}"
                if scaled >= 10
                else f"{scaled:.2f}{unit}"
            )
    return f"{number:g}"


def file_size(bytes_: int) -> str:
    """A file's size in decimal units.

    >>> file_size(504281)
    '504 kB'
    """
    return count(bytes_).replace("k", " k").replace("M", " M").replace("G", " G") + "B"


def duration(seconds: float) -> str:
    """A time as hours, minutes and seconds.

    >>> duration(7), duration(75), duration(3700)
    ('7 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
