"""10**8 events over 1,000 stacks: 50,000 pairs of malloc and free on each of 1,000 lines."""
import bare

churn = bare.churn
source = "def lines(churn):\n" + "    churn(50000, 64)\n" * 1000
namespace = {}
exec(compile(source, "<thousand lines>", "exec"), namespace)
namespace["lines"](churn)
