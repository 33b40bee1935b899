"""Weight decay acts on matrices, and on each trained weight at most once."""

import torch

from dq_lightning.training.parameter_groups import parameter_groups


def test_matrices_decay_and_vectors_do_not(make_module):
    student = make_module(quantized=True).student
    decayed, kept = parameter_groups(student)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in kept["params"])
    assert "weight_decay" not in decayed  # the optimizer's own
    assert kept["weight_decay"] == 0.0
    grouped = [id(p) for p in (*decayed["params"], *kept["params"])]
    assert sorted(grouped) == sorted(id(p) for p in student.parameters())


def test_frozen_weights_are_left_out(make_module):
    student = make_module().student
    student.get_input_embeddings().weight.requires_grad_(False)
    count = sum(len(group["params"]) for group in parameter_groups(student))
    assert count == len(list(student.parameters())) - 1


def test_the_optimizer_decays_only_the_first_group():
    model = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(model.bias)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1, weight_decay=0.5)
    model.weight.grad, model.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    before = model.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * 0.95)
    assert model.bias.tolist() == [1.0, 1.0]
