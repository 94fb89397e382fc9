"""What the detector looks at: seasons, changes that last, variation, scales, tails, and the shift of the threshold."""

import doctest

import numpy as np
import pytest

from unbounded.detect import _looks, _season
from unbounded.detect._columns import Column
from unbounded.detect._events import Events
from unbounded.detect._looks import LASTING, LOOKS, OPPOSITE
from unbounded.detect._scales import Scales
from unbounded.detect._score import Scorer
from unbounded.detect._season import DAY, Season
from unbounded.detect._tail import Tail
from unbounded.detect._threshold import BLOCK, Threshold

HALF_HOUR = 1_800.0
COLUMN = [Column("value")]


def alarms_of(value, every=HALF_HOUR, expected=None, **options):
    """The alarms of a column for which the model expects the last reading."""
    value = np.asarray(value, dtype=float)
    x = (value - value.mean()) / max(value.std(), 1e-9)
    guess = np.concatenate([x[:1], x[:-1]]) if expected is None else expected
    row = np.arange(len(value))
    scorer = Scorer(COLUMN, **options)
    return scorer.score(row, row * every, value[:, None], x[:, None], guess[:, None]).alarms


def daily(days, seed=0, every=HALF_HOUR):
    """A strong cycle of a day, and little noise."""
    time = np.arange(int(days * DAY / every)) * every
    return 50 + 20 * np.sin(2 * np.pi * time / DAY) + np.random.default_rng(seed).normal(size=len(time))


def after(alarms, row):
    return [alarm for alarm in alarms if alarm.row >= row]


def test_a_cycle_of_a_day_raises_few_alarms_and_a_day_without_it_one_soon():
    value = daily(40)
    assert len(after(alarms_of(value), 48 * 7)) <= 5  # one a week is accepted
    value[48 * 30 : 48 * 31] = 50 + np.random.default_rng(1).normal(size=48)
    alarms = [alarm for alarm in alarms_of(value) if 48 * 30 <= alarm.row < 48 * 31]
    assert alarms
    assert alarms[0].row < 48 * 30 + 12


def test_a_reading_that_is_usual_at_noon_is_a_surprise_at_midnight_and_its_cause_is_the_season():
    value = daily(30)
    value[48 * 25 + 36 : 48 * 25 + 39] = 70  # the top of the wave, at its bottom
    # The model sees it coming, and the means of the looks are far from it.
    x = (value - value.mean()) / value.std()
    (alarm,) = [alarm for alarm in alarms_of(value, expected=x) if 48 * 25 <= alarm.row < 48 * 26]
    assert alarm.cause == "season"
    assert 30 < alarm.change < 50
    assert alarm.tail < 1e-3


def test_a_season_learns_days_and_weeks_and_chooses_the_one_that_predicts():
    every = 3_600.0
    time = np.arange(24 * 28) * every
    work = ((time // DAY % 7) < 5) * 4.0 * (np.abs(time % DAY / 3_600 - 12) < 4)
    columns = np.stack([np.sin(2 * np.pi * time / DAY) * 3, work, np.zeros_like(time)], axis=1)
    columns += 0.1 * np.random.default_rng(0).normal(size=columns.shape)
    season = Season(3, every)
    off = np.array([season.step(t, y)[1] for t, y in zip(time.tolist(), columns, strict=True)])
    assert season.used.tolist() == [True, True, False]
    assert np.abs(off[-24 * 7 :]).mean(axis=0).max() < 0.3
    again = Season(3, every)
    again.load_state_dict(season.state_dict())
    later = time[-1] + every
    for one, other in zip(season.step(later, columns[-1]), again.step(later, columns[-1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_readings_of_a_few_a_day_have_no_season():
    season = Season(1, DAY)
    for day in range(60):
        season.step(day * DAY, np.array([float(day % 7)]))
    assert not season.used.any()


def test_a_small_change_that_lasts_is_told_and_its_return_is_not():
    rng = np.random.default_rng(3)
    value = rng.normal(50, 1, 4_000)
    value[2_000:2_200] += 2.0
    alarms = after(alarms_of(value, every=300.0, record=0), 1_000)
    first = alarms[0]
    assert 2_000 <= first.row < 2_100
    assert first.cause == "lasting"
    assert 1 < first.change < 4
    assert not [alarm for alarm in alarms if 2_200 <= alarm.row < 2_800 and alarm.cause == "lasting"]


def test_a_stuck_sensor_and_noise_are_told_as_variation():
    rng = np.random.default_rng(4)
    value = rng.normal(50, 1, 4_000)
    value[2_000:2_200] = value[1_999]
    value[3_000:3_200] = 50 + 4 * rng.normal(size=200)
    alarms = after(alarms_of(value, every=300.0, record=0), 1_000)
    words = {alarm.row: alarm.words for alarm in alarms if alarm.cause == "variation"}
    assert [text for row, text in words.items() if 2_000 <= row < 2_060] == ["value varies less than before"]
    assert any(3_000 <= alarm.row < 3_060 for alarm in alarms)


def test_bursts_of_heavy_tails_raise_few_alarms():
    rng = np.random.default_rng(5)
    rate = 20 * (1 + 0.8 * np.sin(2 * np.pi * np.arange(8_000) / 288))
    for at in np.flatnonzero(rng.random(8_000) < 0.004):
        rate[at : at + 10] += 30 * rng.pareto(1.8)
    value = rng.poisson(rate * rng.gamma(2, 0.5, 8_000))
    assert len(after(alarms_of(value, every=300.0), 1_000)) <= 12


def test_a_fault_that_lasts_is_not_learned_while_it_is_short():
    """The second fault of the same size is a surprise as the first was."""
    rng = np.random.default_rng(6)
    value = rng.normal(50, 1, 5_000)
    value[2_000:2_060] += 12
    value[4_000:4_060] += 12
    rows = [alarm.row for alarm in after(alarms_of(value, every=300.0), 1_000)]
    assert [row for row in rows if 2_000 <= row < 2_060]
    assert [row for row in rows if 4_000 <= row < 4_060]


def test_a_column_that_was_idle_is_judged_on_its_own_scale_once_it_moves():
    rng = np.random.default_rng(7)
    value = np.zeros(3_000)
    value[1_000:] = rng.normal(100, 5, 2_000)
    value[2_500] = 200
    alarms = alarms_of(value, every=300.0)
    first = alarms[0]
    assert (first.row, first.cause, first.change) == (1_000, "sudden", value[1_000])
    assert len(alarms) <= 4
    assert not [alarm for alarm in alarms if 1_000 < alarm.row < 1_150]
    assert 2_500 in [alarm.row for alarm in alarms]


def test_a_false_alarm_a_week_is_accepted_where_readings_are_rare():
    value = np.random.default_rng(8).normal(size=24 * 7 * 30)
    seldom, weekly = (len(alarms_of(value, 3_600.0, weekly=weekly)) for weekly in (0.0, 1.0))
    assert seldom <= 2
    assert seldom < weekly <= 2 * 30


def test_an_event_of_many_columns_raises_one_alarm_that_names_them_in_order():
    rng = np.random.default_rng(9)
    values = rng.normal(size=(1_500, 3))
    values[1_200:1_210, 0] += 15
    values[1_200:1_210, 2] += 40
    values[1_203:1_210, 1] += 15
    row = np.arange(1_500)
    scorer = Scorer([Column("a"), Column("b"), Column("c")])
    result = scorer.score(row, row * 60.0, values, values, values * 0)
    (alarm,) = [alarm for alarm in result.alarms if 1_200 <= alarm.row < 1_300]
    assert alarm.column == "c"
    assert alarm.contributions == ("c", "a")
    assert alarm.score > scorer.threshold
    assert not alarm.record
    assert result.score[1_200] == pytest.approx(alarm.score)


def test_a_state_of_an_earlier_version_is_refused_in_words():
    with pytest.raises(ValueError, match="saved by an earlier version"):
        Scorer(COLUMN).load_state_dict({"columns": ["value"], "rows": 5})


def test_values_over_orders_of_magnitude_have_a_logarithmic_scale():
    rng = np.random.default_rng(10)
    values = np.stack([rng.lognormal(0, 2, 500), rng.normal(size=500), np.zeros(500)], axis=1)
    scales = Scales([Column("bytes"), Column("level"), Column("idle")])
    assert [scales.fit(values[:, i], i) for i in range(3)] == [True, True, False]
    assert scales.idle.tolist() == [False, False, True]
    y = scales.to(values)
    assert y[:, 0].max() < 10 < values[:, 0].max()
    assert np.abs(y[:, :2]).mean(axis=0) == pytest.approx([1, 1], rel=0.2)
    for index in range(2):
        assert scales.back(y[3, index], index) == pytest.approx(values[3, index])


@pytest.mark.parametrize("draw", ["exponential", "normal", "pareto"])
def test_the_tail_beyond_what_was_seen_is_neither_far_too_light_nor_far_too_heavy(draw):
    rng = np.random.default_rng(11)
    size = np.abs(
        {"exponential": rng.exponential, "normal": rng.normal}.get(draw, lambda size: rng.pareto(3, size))(size=10_000)
    )
    tail = Tail(np.ones(1), np.zeros(1, dtype=int), columns=1, memory=100_000)
    tail.learn(size[:, None, None], np.ones((10_000, 1, 1)), seen=np.array([10_000]))
    true = {"exponential": 1e4, "normal": 1e4, "pareto": 1e4}[draw]
    far = {"exponential": np.log(true), "normal": 3.89, "pareto": true ** (1 / 3) - 1}[draw]
    assert tail.rarity(np.array([[[far]]]))[0, 0, 0] == pytest.approx(4, abs=0.8)


def test_a_direction_that_never_occurred_is_judged_by_the_other_one():
    """A drift leaves no sizes downwards; a tiny one is no surprise of 1 in 10**12."""
    size = np.zeros((2_000, 2, 1))
    size[:, 0, 0] = np.random.default_rng(12).exponential(size=2_000)
    tail = Tail(np.ones(2), np.array([1, 0]), columns=1, memory=10_000)
    tail.learn(size, np.ones_like(size), seen=np.array([2_000]))
    assert tail.rarity(np.array([[[0.0], [0.05]]]))[0, 1, 0] < 5


def test_the_threshold_rises_for_a_stream_with_many_surprises():
    rng = np.random.default_rng(13)
    fair, unfair = Threshold(1e-4), Threshold(1e-4)
    for _ in range(200):
        scores = -np.log10(rng.random(BLOCK)) - 4
        fair.learn(scores)
        unfair.learn(scores * 2 + 4)
    assert fair.shift == 0
    assert 1 < unfair.shift <= 3
    again = Threshold(1e-4)
    again.load_state_dict(unfair.state_dict())
    assert again.shift == unfair.shift


def test_one_fault_hardly_moves_the_threshold():
    threshold = Threshold(1e-4)
    scores = np.full(BLOCK, -2.0)
    for block in range(50):
        threshold.learn(scores + 10 * (block == 40))
    assert threshold.shift < 0.2


def test_a_far_worse_reading_in_the_silence_after_an_alarm_is_told():
    events = Events(LASTING, 1, refractory=100)
    quiet = np.full((LOOKS, 1), -1.0)
    bad, worse = quiet.copy(), quiet.copy()
    bad[0], worse[0] = 1.0, 5.0
    told = [row for row in range(200) if events.step(row, {0: bad, 30: bad, 60: worse}.get(row, quiet), True)[0] == 0]
    assert told == [0, 60]


def test_each_look_has_an_opposite_of_its_cause():
    assert (OPPOSITE[OPPOSITE] == np.arange(LOOKS)).all()
    assert all(_looks.CAUSES[i] == _looks.CAUSES[j] and i != j for i, j in enumerate(OPPOSITE))


@pytest.mark.parametrize("module", [_looks, _season])
def test_the_examples_in_the_docstrings_run(module):
    assert doctest.testmod(module).failed == 0
