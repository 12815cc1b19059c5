"""The formats that the operator and the trainer share: recipe, progress, termination message, exit codes, manifest.

Each wire format has one definition here. The operator, the trainer and the tests' scripted trainer import it. The
package imports only the standard library and pydantic.
"""
