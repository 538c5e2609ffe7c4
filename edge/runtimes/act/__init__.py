"""Acting: what a person wants becomes tool calls, and tool calls are carried out within bounds.

The hands (`hands.Hands`) carry out one call after another: they check its arguments, ask the policy and the person,
write down what they do before and after, and run the tool confined.
"""
