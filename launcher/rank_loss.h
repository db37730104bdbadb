#pragma once

namespace flotilla {

// What the survivors do when a rank of the group is lost (--on-rank-loss).
enum class OnRankLoss {
  kContinue,  // take its experts over, if their memory allows
  kWait,      // stand still until it is back
};

}  // namespace flotilla
