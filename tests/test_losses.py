"""What distillation minimises, against equations 8 to 16 of the paper written out entry by entry."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_graphs import labelled
from test_student import literal_attention

from stkd_screen.errors import TrainingError
from stkd_screen.smiles import pack_smiles, pretransform
from stkd_screen.smiles.tokens import NOTHING, lay_out
from stkd_screen.student import PRESETS, Learned, Student, StudentConfig
from stkd_screen.targets import Target
from stkd_screen.teach.coverage import Coverage
from stkd_screen.teach.distill import DistillConfig, Distiller
from stkd_screen.teach.graphormer import PRESETS as TEACHER_PRESETS
from stkd_screen.teach.graphormer import Graphormer, GraphormerConfig
from stkd_screen.teach.layer_pairs import layer_pairs, parse_layer_pairs
from stkd_screen.teach.losses import attention_loss, feature_loss, knowledge_mixing, task_loss
from stkd_screen.teach.targets import TargetColumn
from stkd_screen.teach.teacher import Teacher


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 100 * sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def assert_same_with_gradients(ours: torch.Tensor, literal: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, literal, rtol=0, atol=1e-10)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(literal, inputs), strict=True
    ):
        assert theirs.abs().max() > 1e-6
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


# The equations


def literal_feature_loss(teacher: torch.Tensor, student: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """Eq. 8."""
    total, count = 0.0, 0
    for x, h in zip(teacher, student, strict=True):
        for d in range(len(x)):
            total = total + (x[d] - h @ W[:, d]) ** 2
            count += 1
    return total / count


def literal_attention_loss(
    teacher: torch.Tensor, bias: torch.Tensor, n_atoms: list[int], W: torch.Tensor
) -> torch.Tensor:
    """Eq. 13 to 15, with the mean over the entries that M keeps."""
    total, count = 0.0, 0
    for b, n in enumerate(n_atoms):
        M = torch.zeros(n + 1, n + 1, dtype=torch.float64)
        for i in range(n + 1):
            for j in range(n + 1):
                M[i, j] = 1.0 if 1 <= i <= n and 0 <= j <= n else 0.0
        reduced = [M * bias[b, h, : n + 1, : n + 1] for h in range(bias.shape[1])]  # eq. 14
        for g in range(len(W)):
            mixed = sum(W[g, h] * reduced[h] for h in range(len(reduced)))
            for i in range(n + 1):
                exponentials = torch.exp(mixed[i])
                weights = exponentials / exponentials.sum()
                kept = M[i] == 1
                total = total + ((M[i] * teacher[b, g, i, : n + 1] - weights) ** 2)[kept].sum()
                count += int(kept.sum())
    return total / count


def attention_of(n_atoms: list[int], heads: int, T: int) -> torch.Tensor:
    """Random weights as a teacher gives them: nothing on padding, rows sum to 1."""
    scores = random_tensor(len(n_atoms), heads, T, T, seed=9).detach()
    for b, n in enumerate(n_atoms):
        scores[b, :, :, n + 1 :] = -math.inf
    return torch.softmax(scores, -1)


def test_feature_loss_is_equation_8():
    teacher, student, W = (random_tensor(*shape) for shape in ((4, 7), (4, 5), (5, 7)))
    ours, literal = feature_loss(teacher, student, W), literal_feature_loss(teacher, student, W)
    assert_same_with_gradients(ours, literal, [teacher, student, W])


@pytest.mark.parametrize("n_atoms", [[3, 3], [5, 2, 1, 4], [1], [1, 6]])
@pytest.mark.parametrize(("theirs", "ours"), [(3, 2), (2, 5), (1, 1)])
def test_attention_loss_is_equations_14_and_15(n_atoms, theirs, ours):
    T = max(n_atoms) + 1
    teacher = attention_of(n_atoms, theirs, T)
    bias, W = random_tensor(len(n_atoms), ours, T, T), random_tensor(theirs, ours)
    loss = attention_loss(teacher, bias, torch.tensor(n_atoms), W)
    assert_same_with_gradients(loss, literal_attention_loss(teacher, bias, n_atoms, W), [bias, W])
    gradient = torch.autograd.grad(attention_loss(teacher, bias, torch.tensor(n_atoms), W), bias)[0]
    for b, n in enumerate(n_atoms):  # nothing reaches the row of [V], and padding
        assert not gradient[b, :, 0].any()
        assert not gradient[b, :, n + 1 :].any() and not gradient[b, :, :, n + 1 :].any()


def test_attention_loss_sees_neither_the_row_of_the_virtual_node_nor_padding():
    n_atoms = [4, 2]
    teacher, bias, W = attention_of(n_atoms, 2, 5), random_tensor(2, 3, 5, 5).detach(), random_tensor(2, 3)
    loss = attention_loss(teacher, bias, torch.tensor(n_atoms), W)
    other_teacher, other_bias = teacher.clone(), bias.clone()
    other_teacher[:, :, 0] = 7.0
    other_bias[:, :, 0] = -50.0
    other_bias[1, :, 3:] = 1e4
    other_bias[1, :, :, 3:] = 1e4
    assert attention_loss(other_teacher, other_bias, torch.tensor(n_atoms), W) == loss
    other_teacher[1, :, 2, 0] += 0.1  # the column of the virtual node does count
    assert attention_loss(other_teacher, other_bias, torch.tensor(n_atoms), W) != loss


def test_attention_loss_is_zero_for_a_student_that_has_learned_all():
    n_atoms, T = [4, 2], 5
    teacher = attention_of(n_atoms, 3, T)
    bias = torch.log(teacher.clamp(min=1e-300)) + 5.0  # a constant of a row makes no difference
    loss = attention_loss(teacher, bias, torch.tensor(n_atoms), torch.eye(3, dtype=torch.float64))
    assert loss < 1e-28


def literal_task_loss(prediction: torch.Tensor, target: torch.Tensor, classes: list[int]) -> torch.Tensor:
    of_molecules = []
    for p, t in zip(prediction, target, strict=True):
        losses = []
        for k in range(len(p)):
            if math.isnan(t[k]):
                continue
            if k in classes:
                probability = 1 / (1 + torch.exp(-p[k]))
                losses.append(-torch.log(probability if t[k] == 1 else 1 - probability))
            else:
                losses.append(abs(p[k] - t[k]))
        of_molecules.append(sum(losses) / len(losses) if losses else 0.0 * p[0])
    return sum(of_molecules) / len(of_molecules)


@pytest.mark.parametrize("classes", [[], [1], [1, 3], [0, 1, 2, 3]])
def test_task_loss_with_missing_targets_and_classes(classes):
    nan = math.nan
    prediction = random_tensor(5, 4, seed=2)
    target = random_tensor(5, 4, seed=3).detach()
    target[:, classes] = (target[:, classes] > 0).double()
    target[0, 1] = target[1, 0] = target[1, 1] = target[1, 3] = nan
    target[3] = nan  # a molecule without any
    ours, literal = (loss(prediction, target, classes) for loss in (task_loss, literal_task_loss))
    assert_same_with_gradients(ours, literal, [prediction])
    gradient = torch.autograd.grad(task_loss(prediction, target, classes), prediction)[0]
    assert not gradient[target.isnan()].any() and gradient[~target.isnan()].all()


def test_task_loss_by_hand():
    target = torch.tensor([[0.0, math.nan], [2.5, 0.5]])
    prediction = torch.tensor([[1.0, 5.0], [2.0, 2.0]])
    assert task_loss(prediction, target, []).item() == pytest.approx((1.0 + (0.5 + 1.5) / 2) / 2)
    half = task_loss(torch.zeros(1, 1), torch.ones(1, 1), [0])
    assert half.item() == pytest.approx(math.log(2))
    # A teacher's probability serves as the label, too: the least loss is where the student gives the same.
    logit = torch.tensor([[math.log(0.8 / 0.2)]], requires_grad=True)
    task_loss(logit, torch.tensor([[0.8]]), [0]).backward()
    assert abs(logit.grad.item()) < 1e-7


def test_knowledge_mixing_is_the_mean_distance_of_consecutive_layers():
    states = [random_tensor(3, 4, seed=seed) for seed in range(5)]
    literal = sum(
        abs(states[layer + 1][b, d] - states[layer][b, d])
        for layer in range(4)
        for b in range(3)
        for d in range(4)
    ) / (4 * 3 * 4)
    assert_same_with_gradients(knowledge_mixing(states), literal, states)
    assert knowledge_mixing(states[:1]) == 0


# What the student gives: eq. 9


CONFIG = StudentConfig(width=12, heads=3, feed_forward=20, standard_layers=2, biased_layers=2)


def student_batch(smiles: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    molecules = pretransform(*pack_smiles(smiles))
    tokens, n_atoms, _ = lay_out(molecules, np.arange(len(smiles)))
    return torch.from_numpy(tokens), torch.from_numpy(n_atoms)


def literal_layers(student: Student, tokens: torch.Tensor, n_atoms: torch.Tensor, pairs: torch.Tensor):
    """What enters the attention of each layer, and what leaves the layer, for all tokens."""
    pair_bias = student.pair_bias[pairs.long()] if student.config.surroundings else None
    x = (student.table[tokens.long()] * (tokens != NOTHING)[..., None]).sum(2)
    entering, leaving = [], []
    for layer in student.layers:
        entering.append(layer.attention_norm(x))
        x = x + literal_attention(layer.attention, entering[-1], n_atoms, pair_bias)
        hidden = F.gelu(layer.feed_forward[0](layer.feed_forward_norm(x)))
        x = x + layer.feed_forward[2](hidden)
        leaving.append(x)
    return entering, leaving


@pytest.mark.parametrize("smiles", [["CCCCCC", "C1CC2C1C2"], ["C"], ["CC(=O)Nc1ccc(O)cc1"]])
def test_learned_biases_are_equation_9_and_states_those_of_the_layers(smiles):
    torch.manual_seed(0)
    student = Student(CONFIG).double()
    tokens, n_atoms = student_batch(smiles)
    N = int(n_atoms.max())
    learned = Learned(atoms=N)
    with_learned = student(tokens, n_atoms, learned=learned)
    for ours, plain in zip(with_learned, student(tokens, n_atoms), strict=True):
        assert torch.equal(ours, plain)
    entering, leaving = literal_layers(student, tokens, n_atoms, torch.empty(0))
    D, K = CONFIG.width, CONFIG.width // CONFIG.heads
    ours, literal = [], []
    for q, layer in enumerate(student.layers):
        ours.append(learned.states[q])
        literal.append(leaving[q][:, 0])
        if q < 2:
            assert learned.biases[q] is None
            with pytest.raises(AssertionError, match=f"layer {q} is a standard one"):
                learned.bias(q)
            continue
        assert learned.bias(q).shape == (len(smiles), 3, N + 1, N + 1)
        H, weight = entering[q], layer.attention.project.weight
        for h in range(3):
            q_weight, k_weight = (weight[part * D + h * K : part * D + (h + 1) * K] for part in (3, 4))
            whole = (H @ q_weight.T) @ (H @ k_weight.T).transpose(1, 2)
            ours.append(learned.bias(q)[:, h])
            literal.append(whole[:, : N + 1, : N + 1])
    gradients = []
    for tensors in (ours, literal):
        student.zero_grad()
        sum((tensor.square() * (k + 1)).sum() for k, tensor in enumerate(tensors)).backward()
        gradients.append([p.grad for p in student.layers.parameters()])
    for mine, theirs in zip(ours, literal, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    for mine, theirs in zip(*gradients, strict=True):
        scale = theirs.abs().max().clamp(min=1)
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=0, atol=1e-10)


# All of it together: eq. 16


COLUMNS = [
    TargetColumn.parse("toy.weight=weight:eV"),
    TargetColumn.parse("toy.active=active:class"),
    TargetColumn.parse("other.rings=rings:none"),
]
NAN = math.nan
# Twelve tokens each; then others, so that each split has molecules and each target two values.
SMILES = ["CCCCCC", "C1CC2C1C2", "CCOCCN", "CC(C)(C)CO", "CCCCCF", "OCCCCO", "CCC", "CCCO"]
TARGETS = np.array(
    [
        [6.0, 1.0, 0.0],
        [5.0, 0.0, 2.0],
        [7.0, NAN, NAN],
        [NAN, NAN, NAN],
        [NAN, 1.0, 0.0],
        [NAN, NAN, NAN],
        [3.0, 1.0, 0.0],
        [4.0, 0.0, 0.0],
    ]
)
SPLIT = np.array([0, 0, 0, 0, 0, 0, 1, 2])


def make_teacher(targets: list[Target], layers: int = 5, heads: int = 4) -> Teacher:
    torch.manual_seed(7)
    config = GraphormerConfig(
        layers=layers, width=20, heads=heads, feed_forward=16, targets=len(targets), dropout=0.2
    )
    model = Graphormer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    levels = {target.level for target in targets}
    coverage = Coverage({k: np.array([1], np.int32) for k in levels}, dict.fromkeys(levels, 9))
    return Teacher(model, targets, coverage, {"columns": []}, name="test-teacher", sha256="0" * 64)


TAUGHT = [
    Target("active", "toy", "class", 0.0, 1.0),
    Target("other", "toy", "eV", 0.0, 1.0),
    Target("weight", "toy", "eV", 4.0, 3.0),
]


@pytest.fixture
def distiller(monkeypatch):
    """Three biased layers, and a teacher with other widths and heads that knows two of three targets."""
    small = StudentConfig(width=12, heads=3, feed_forward=16, standard_layers=1, biased_layers=3)
    monkeypatch.setitem(PRESETS, "tiny", small)

    def make(**options) -> Distiller:
        data = labelled(SMILES, TARGETS, SPLIT, COLUMNS)
        config = DistillConfig(preset="tiny", teacher_memory=0.0, **options)
        trainer = Distiller(data, make_teacher(TAUGHT), config)
        trainer.get_ready(lambda note: None)
        return trainer

    return make


def in_float64(trainer: Distiller, monkeypatch) -> tuple[torch.Tensor, ...]:
    """A batch of the first six molecules, with the models, and the casts of the loss, in double precision.

    With surroundings all but the second of them: it has an atom less, and as many tokens only with bonds.
    """
    trainer.model.double()
    trainer.teacher.model.double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    rows = np.arange(6) if not trainer.surrounded else np.array([0, 2, 3, 4, 5])
    tokens, n_atoms, pairs, target, others, graphs = trainer.prepare(rows)
    assert not others.any()  # see tests/test_ensemble.py
    assert n_atoms.tolist() == np.array([6, 5, 6, 6, 6, 6])[rows].tolist()
    return tokens, n_atoms, pairs, target.double(), others, graphs


def over_its_width(state: torch.Tensor) -> torch.Tensor:
    """The teacher's state with mean 0 and variance 1 over its width (layer norm without weights)."""
    centred = state - state.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()


def literal_terms(trainer: Distiller, batch, alpha: float, beta: float, pairs) -> dict[str, torch.Tensor]:
    tokens, n_atoms, between, target, _, graphs = batch
    B = len(target)
    taught = trainer.teacher.model(graphs, with_attention=True)
    student = trainer.model.student
    entering, leaving = literal_layers(student, tokens, n_atoms, between)
    prediction = student.readout(student.norm(leaving[-1][:, 0]))
    mean, std = (
        torch.tensor([getattr(t, key) for t in trainer.targets], dtype=torch.float64)
        for key in ("mean", "std")
    )
    # The teacher's word where a label is missing: weight is its third target, active its first.
    soft = torch.full((B, 3), NAN, dtype=torch.float64)
    for b in range(B):
        if math.isnan(target[b, 0]):
            soft[b, 0] = (taught.prediction[b, 2] * 3.0 + 4.0 - mean[0]) / std[0]
        if math.isnan(target[b, 1]):
            soft[b, 1] = 1 / (1 + torch.exp(-taught.prediction[b, 0]))
    soft_loss = 0.0
    for b in range(B):
        parts = []
        if not math.isnan(soft[b, 0]):
            parts.append(abs(prediction[b, 0] - soft[b, 0]))
        if not math.isnan(soft[b, 1]):
            parts.append(F.softplus(prediction[b, 1]) - soft[b, 1] * prediction[b, 1])  # cross entropy
        soft_loss = soft_loss + (sum(parts) / len(parts) if parts else 0.0) / B
    feature, attention = 0.0, 0.0
    D, heads = student.config.width, student.config.heads
    K, T = D // heads, graphs.atom_features.shape[1] + 1
    for i, (p, q) in enumerate(pairs):
        standardised = (over_its_width(taught.states[p]) - trainer.model.centre[i]) / trainer.model.spread[i]
        feature = feature + literal_feature_loss(standardised, leaving[q][:, 0], trainer.model.features[i])
        weight = student.layers[q].attention.project.weight
        biases = []
        for h in range(heads):
            q_weight, k_weight = (weight[part * D + h * K : part * D + (h + 1) * K] for part in (3, 4))
            biases.append((entering[q] @ q_weight.T) @ (entering[q] @ k_weight.T).transpose(1, 2))
        bias = torch.stack(biases, 1)[:, :, :T, :T]
        attention = attention + literal_attention_loss(
            taught.attention[p], bias, n_atoms.tolist(), trainer.model.attention[i]
        )
    return {
        "task": literal_task_loss(prediction, target, [1]),
        "soft": soft_loss,
        "feature": alpha * feature,
        "attention": beta * attention,
    }


@pytest.mark.parametrize(("pairs", "surroundings"), [(None, False), (((0, 1), (4, 3)), False), (None, True)])
def test_loss_terms_are_equation_16(distiller, monkeypatch, pairs, surroundings):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], surroundings=surroundings))
    trainer = distiller(alpha=0.5, beta=2.0, soft=0.7, layer_pairs=pairs, initial_stage=0.0)
    batch = in_float64(trainer, monkeypatch)
    ours = trainer.loss_terms(batch)
    # By default the last three of five layers on the last three of four.
    literal = literal_terms(trainer, batch, 0.5, 2.0, pairs or ((2, 1), (3, 2), (4, 3)))
    literal["soft"] = 0.7 * literal["soft"]
    assert ours.keys() == literal.keys()
    for name in ours:
        assert literal[name] > 1e-4, name
        # The teacher's predictions pass through a float32 table of targets.
        tolerance = 1e-6 if name == "soft" else 1e-10
        torch.testing.assert_close(ours[name], literal[name], rtol=0, atol=tolerance)
    gradients = []
    for terms in (ours, literal):
        trainer.model.zero_grad()
        (terms["task"] + terms["feature"] + terms["attention"]).backward(retain_graph=True)
        gradients.append({name: p.grad.clone() for name, p in trainer.model.named_parameters()})
    for name, theirs in gradients[1].items():
        assert theirs.abs().max() > 0, name
        scale = theirs.abs().max().clamp(min=1)
        torch.testing.assert_close(gradients[0][name] / scale, theirs / scale, rtol=0, atol=1e-10)
    assert all(p.grad is None for p in trainer.teacher.model.parameters())


def test_states_are_standardised_over_the_training_molecules(distiller, monkeypatch):
    """Each dimension has mean 0, and all together have variance 1."""
    trainer = distiller(layer_pairs=((1, 1), (4, 3)))
    graphs = in_float64(trainer, monkeypatch)[-1]
    taught = trainer.teacher.model(graphs)
    for k, p in enumerate((1, 4)):
        states = (over_its_width(taught.states[p]) - trainer.model.centre[k]) / trainer.model.spread[k]
        torch.testing.assert_close(states.mean(0), torch.zeros(20).double(), rtol=0, atol=1e-5)
        assert states.square().mean().item() == pytest.approx(1.0, abs=1e-5)


def test_states_nobody_looks_at_are_not_computed(distiller, monkeypatch):
    monkeypatch.setattr(Graphormer, "forward", None)
    scales = distiller(alpha=0.0, beta=2.0, initial_stage=0.0).model
    assert not scales.centre.any() and (scales.spread == 1).all()


def test_the_initial_stage_has_no_task_loss(distiller, monkeypatch):
    trainer = distiller(initial_stage=0.25, epochs=40)
    batch = in_float64(trainer, monkeypatch)
    pairs = ((2, 1), (3, 2), (4, 3))
    later = literal_terms(trainer, batch, 0.5, 2.0, pairs)
    initial = literal_terms(trainer, batch, 1.0, 4.0, pairs)
    last = math.ceil(0.25 * trainer.total_steps) - 1
    assert 2 < last < trainer.total_steps - 2
    for step, literal in ((0, initial), (last, initial), (last + 1, later), (trainer.total_steps, later)):
        trainer.step = step
        ours = trainer.loss_terms(batch)
        for name in ("feature", "attention"):
            torch.testing.assert_close(ours[name], literal[name], rtol=0, atol=1e-10)
        for name in ("task", "soft"):
            assert (ours[name] == 0) == (literal is initial)
    trainer.step = 0
    trainer.model.zero_grad()
    sum(trainer.loss_terms(batch).values()).backward()
    readout = [p.grad for p in trainer.model.student.readout.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in readout)


def test_knowledge_mixing_is_added_with_its_strength(distiller, monkeypatch):
    trainer = distiller(lkm_gamma=0.02)
    batch = in_float64(trainer, monkeypatch)
    _, leaving = literal_layers(trainer.model.student, *batch[:3])
    literal = 0.02 * sum((after[:, 0] - before[:, 0]).abs().mean() for before, after in pairwise(leaving))
    torch.testing.assert_close(trainer.loss_terms(batch)["lkm"], literal / 3, rtol=0, atol=1e-10)


def test_soft_targets_are_the_teachers_in_the_students_scale(distiller):
    trainer = distiller()
    ours = trainer.targets
    assert [t.is_class for t in ours] == [False, True, False]
    target = torch.tensor([[NAN, NAN, NAN], [0.5, NAN, NAN], [NAN, 1.0, 2.0]])
    says = torch.tensor([[0.3, 9.0, -1.0], [-2.0, 9.0, 0.0], [5.0, 9.0, 2.0]])
    soft = trainer.soft_targets(target, says, torch.zeros_like(target))
    for b in range(3):
        for k, (column, scale) in enumerate([(2, True), (0, False), (None, False)]):
            if column is None or not math.isnan(target[b, k]):
                assert math.isnan(soft[b, k])
            elif scale:
                in_ev = says[b, column].item() * 3.0 + 4.0
                assert soft[b, k].item() == pytest.approx((in_ev - ours[k].mean) / ours[k].std, abs=1e-5)
            else:
                assert soft[b, k].item() == pytest.approx(1 / (1 + math.exp(-says[b, column])), abs=1e-6)


# Layer pairs


def models(teacher: GraphormerConfig, student: StudentConfig) -> tuple[Teacher, Student]:
    return replace(make_teacher(TAUGHT), model=Graphormer(teacher)), Student(student)


def test_the_papers_layer_pairs_are_the_default_for_its_sizes():
    # The presets at a fraction of their width; their depths are what counts.
    assert TEACHER_PRESETS["base"].layers == 12
    assert (PRESETS["paper"].standard_layers, PRESETS["paper"].biased_layers) == (3, 3)
    narrow = (
        replace(TEACHER_PRESETS["base"], width=32, feed_forward=8),
        replace(PRESETS["paper"], width=16, feed_forward=8),
    )
    assert layer_pairs(*models(*narrow), None) == [(9, 3), (10, 4), (11, 5)]


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((6, 3, 3), [(3, 3), (4, 4), (5, 5)]),
        ((12, 2, 4), [(9, 3), (10, 4), (11, 5)]),
        ((3, 1, 1), [(2, 1)]),
        ((2, 3, 3), [(0, 4), (1, 5)]),
        ((8, 4, 2), [(6, 4), (7, 5)]),
    ],
)
def test_for_other_depths_the_last_layers_are_compared(depths, expected):
    theirs, standard, biased = depths
    teacher = GraphormerConfig(layers=theirs, width=4, heads=1, feed_forward=4)
    student = StudentConfig(4, 1, 4, standard_layers=standard, biased_layers=biased)
    assert layer_pairs(*models(teacher, student), None) == expected


@pytest.mark.parametrize("wrong", [(12, 3), (9, 2), (9, 6), (-1, 3), (0, -1)])
def test_wrong_layer_pairs_are_refused_with_fact_place_and_fix(wrong):
    both = models(GraphormerConfig(12, 4, 1, 4), StudentConfig(4, 1, 4))
    assert layer_pairs(*both, [(0, 3), (11, 5), (11, 3)]) == [(0, 3), (11, 5), (11, 3)]
    with pytest.raises(TrainingError) as caught:
        layer_pairs(*both, [(9, 3), wrong])
    message = str(caught.value)
    assert f"layer pair {wrong[0]}:{wrong[1]}" in message
    assert "'test-teacher' has layers 0 to 11" in message and "biased layers are 3 to 5" in message
    assert "--layer-pairs" in message


def test_layer_pairs_are_read():
    assert parse_layer_pairs("9:3,10:4,11:5") == ((9, 3), (10, 4), (11, 5))
    assert parse_layer_pairs(" 9:3, 10:4 ") == ((9, 3), (10, 4))
    assert parse_layer_pairs("0:1") == ((0, 1),)


@pytest.mark.parametrize(
    "text", ["9", "9:3;10:4", "9-3", "9:3,", ",9:3", "a:b", "9:3:1", "-1:3", "", "9:3 10:4"]
)
def test_other_layer_pairs_are_refused(text):
    with pytest.raises(TrainingError, match="--layer-pairs .* is not of the form .*9:3,10:4,11:5"):
        parse_layer_pairs(text)
