"""Names for containers that were given none: an adjective and a noun, animals and tools."""

from __future__ import annotations

import os

ADJECTIVES = (
    "able agile amber ample apt arctic azure bold brave breezy brief bright brisk bronze calm "
    "candid cheery chilly civil classy clean clear clever cosy crisp curious daring deft dewy "
    "eager early easy elastic fair famous fancy fast fearless fine firm fleet fluent fond frank "
    "free fresh frosty gentle glad golden good grand great green handy happy hardy hearty honest "
    "humble icy ideal jolly keen kind large lively loyal lucid lucky mellow merry mighty mild "
    "modest neat nimble noble open patient placid plain polite proud quick quiet rapid ready "
    "robust rosy rustic sharp silent silver smart solid spry steady sunny swift tidy vivid warm "
    "wise witty"
).split()
NOUNS = (
    "adder alpaca anchor anvil auger awl badger basket beaver bellows beetle bison bobbin bolt "
    "brush bucket buzzard camel canary cart chisel cicada clamp cobra compass condor coyote crab "
    "crane cricket crow curlew dingo dolphin donkey dove drill eagle egret elk falcon ferret file "
    "finch flask fox frog funnel gannet gazelle gecko gibbon gimlet goose grouse gull hammer hare "
    "harrow hawk hedgehog heron hinge hoe hornet ibex ibis jackal jackdaw jaguar kestrel kettle "
    "kiwi koala ladle lamp lantern lark lathe lemur lever linnet lizard llama loom loon lynx "
    "magpie mallet marmot marten mole moose needle newt nightjar ocelot octopus orca oriole "
    "osprey otter owl panda panther parrot pelican pestle pigeon pike plane plough plover pulley "
    "puffin quail rabbit raccoon rake raven robin rook rudder salmon sandpiper saw scythe seal "
    "shears shovel shuttle sickle skylark sparrow spindle spoke squirrel stork swallow swan tapir "
    "tern thimble thrush toucan trout trowel turtle viper walrus weasel wedge whale wombat wrench "
    "wren yak zebra"
).split()


def draw(attempt: int) -> str:
    """A random name such as `brisk_heron`; after ten attempts a number is added."""
    first, second, third, fourth = os.urandom(4)
    name = f"{ADJECTIVES[first % len(ADJECTIVES)]}_{NOUNS[(second << 8 | third) % len(NOUNS)]}"
    return f"{name}{fourth % 10 + attempt}" if attempt > 10 else name
