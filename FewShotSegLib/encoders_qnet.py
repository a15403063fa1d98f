"""Q-Net's encoder, which RPT, PAMI and QAMP share: two feature maps and a threshold for every image.

adnet_qnet_rpt_pami_qamp.md section 5. It serves the published models; everything else stands on `encoders.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CHANNELS = 512


@dataclass(frozen=True, eq=False)
class QnetFeatures:
    """Fine map (n 512 h/4 w/4), coarse map (n 512 h/8 w/8) and threshold (n) of every image."""

    fine: Tensor
    coarse: Tensor
    threshold: Tensor


class QnetEncoder(nn.Module):
    """ResNet-101, stages 2 and 3 dilated instead of strided, with a 1x1 convolution on each of the last two stages.

    The threshold comes from ResNet's own classifier and one more linear layer.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet101  # heavy: only when asked for

        self.backbone = resnet101(weights=None, replace_stride_with_dilation=[True, True, False])
        self.reduce1 = nn.Conv2d(1024, CHANNELS, 1, bias=False)
        self.reduce2 = nn.Conv2d(2048, CHANNELS, 1, bias=False)
        self.reduce1d = nn.Linear(1000, 1)

    def forward(self, slices: Tensor) -> QnetFeatures:
        """Grey slices (n h w), or images (n 3 h w); h and w multiples of 8."""
        x = slices[:, None].expand(-1, 3, -1, -1) if slices.ndim == 3 else slices
        net = self.backbone
        x = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
        fine = net.layer3(x)
        coarse = net.layer4(fine)
        threshold = self.reduce1d(net.fc(torch.flatten(net.avgpool(coarse), 1)))
        return QnetFeatures(self.reduce1(fine), self.reduce2(coarse), threshold[:, 0])
