"""Letter-to-sound rules for words that no lexicon knows: names, slang, other languages in Latin letters.

Each rule is a pattern and the CMU phones that it stands for. At each place of the word the first rule that
fits is taken; every letter of the alphabet has a last rule, so a word is always read to its end.
"""

import re
import string
from functools import lru_cache

_ENGLISH = r"""
^kn=N ^gn=N ^pn=N ^mn=N ^wr=R ^ps=S ^pt=T ^x=Z ^mc=M_AH_K ^wh(?=o)=HH wh=W rh=R
tch=CH tion=SH_AH_N sion(?<=[aeiou]sion)=ZH_AH_N ssion=SH_AH_N cian=SH_AH_N [ct]ial=SH_AH_L [ct]ious=SH_AH_S
ture$=CH_ER ture(?=[sd]$)=CH_ER sure$=ZH_ER cques$=K_S que$=K que(?=s$)=K
sch=SH ch(?=[rlm])=K ch=CH ck=K cc(?=[eiy])=K_S c(?=[eiy])=S c(?=[cq])= c=K
ph=F ough$=OW ough(?=t)=AO augh=AO igh=AY eigh=EY aigh=EY ^gh=G gh= sh=SH th=TH
dg(?=[eiy])=JH dj=JH g(?=g)= (?<=g)g=G ^ge(?=or)=JH g(?=[eiy])=JH gu(?=[eiy])=G g=G
ng(?=$|s$|[^aeiouylr])=NG n(?=[kqx]|c[^eihy]|g)=NG qu=K_W q=K x=K_S
mb$=M mb(?=s$)=M lk$(?<=[ao]lk)=K ([bdfklmnprtvzsj])(?=\1)=
(?<=[pktf])s$=S (?<=ce)s$=Z (?<=[^s])s$=Z sc(?=[eiy])=S (?<=[aeiou])s(?=[aeiou])=Z s=S
(?<=[td])ed$=IH_D (?<=[pkfxcs])ed$=T (?<=[aeiou].)ed$=D (?<=[aeiou]..)ed$=D
(?<=[bcdfgkptz])les?$=AH_L (?<=[sxzcg])e(?=s$)=IH (?<=sh)e(?=s$)=IH (?<=ch)e(?=s$)=IH
(?<=[aeiouy][^aeiouy])e(?=s?$)= (?<=[aeiouy][^aeiouy][^aeiouy])e(?=s?$)=
(?<=[aeiouy][^aeiouy])e(?=ly$|ness$|less$|ful$|ment$)= e$=IY
aigh=EY air=EH_R ai=EY ay=EY au=AO aw=AO aa=AA ae=IY are$=EH_R arr=AE_R ar(?=[aeiouy])=EH_R
w(?=ar)=W (?<=w)ar=AO_R (?<=[aeiouy].)ar$=ER (?<=[aeiouy]..)ard$=ER_D ar=AA_R
all=AO_L (?<=w)a(?=[^aeioukxg][^aeiou]|[tnsd]$)=AA al(?=[kdt])=AO_L (?<=[aeiouy].)age$=IH_JH
(?<=[aeiouy].)ate$=EY_T a(?=[^aeiouywxr](?:e[sd]?|ing|es)$)=EY a(?=st[e]|ng[e])=EY
a(?=[^aeiouywxr](?:ion|ious|ial|ia))=EY a$=AH ^a(?=[^aeiou][^aeiouylr]?[aeiou].)=AH a=AE
eer=IH_R ear(?=[nlt]h?)=ER ear=IH_R eau=OW ea(?=d|lth|ven|ther)=EH ea=IY ee=IY ere$=IH_R
eigh=EY ei(?=n|l)=EY ei=IY eur=ER (?<=[rljcd])ew=UW ew=Y_UW (?<=[rljcdtsn])eu=UW eu=Y_UW ey$=IY ey=EY
eo(?=n$)=AH eo=IY_OW er(?=[aeiouy])=EH_R err=EH_R er=ER e(?=[^aeiouywxr]e$)=IY
(?<=[aeiouy].)en$=AH_N (?<=[aeiouy]..)en$=AH_N (?<=[aeiouy].)e[lm](?=s?$)=AH_L (?<=[aeiouy].)et$=AH_T
(?<=[aeiouy].)ess$=AH_S (?<=[aeiouy].)ent$=AH_N_T ^e(?=[vln][aeiou])=IH ism$=IH_Z_AH_M
e(?=[^aeiouywxr][aeiou].)=EH e=EH
ier=IY_ER (?<=^[^aeiouy])ie$=AY (?<=^[^aeiouy][^aeiouy])ie$=AY (?<=^[^aeiouy][^aeiouy][^aeiouy])ie$=AY
ie(?=s?$|d$)=IY ie(?=[nl])=IY ie=IY igh=AY ign$=AY_N ind$=AY_N_D ild$=AY_L_D
io(?=n)=Y_AH iou=IY_AH io=IY_OW ia=IY_AH iu=IY_AH ire=AY_ER irr=IH_R ir(?=[aeiou])=IH_R ir=ER
i(?=[^aeiouywxr](?:e[sd]?)$)=AY i(?=zing$|ding$|ting$|ning$)=AY i$=IY i=IH
oar=AO_R oa=OW oeu=UW oe=OW oi=OY oy=OY oor=AO_R ook=UH_K oo=UW ould=UH_D ound=AW_N_D ount=AW_N_T
our$=AO_R our=AO_R ous$=AH_S ou=AW ow$=OW ow(?=n$)=AW ow=OW ore(?!r)=AO_R (?<=w)or(?=[^ne])=ER
(?<=[aeiouy].)or$=ER (?<=[aeiouy]..)or$=ER or=AO_R old=OW_L_D olk=OW_K oll$=OW_L ost$=OW_S_T
(?<=[aeiouy].)on$=AH_N (?<=[aeiouy]..)on$=AH_N (?<=[aeiouy].)om$=AH_M
o(?=[^aeiouywx](?:e[sd]?|ing)$)=OW o$=OW o(?=s$)=OW o(?=[^aeiouywxrlgvps][aeiou])=OW o=AA
ue$=UW ui=UW ur(?=[aeiou])=Y_UH_R urr=ER ur=ER (?<=[rljsd])u(?=[^aeiouyrwx][aeiouy])=UW
u(?=[^aeiouyrwx][aeiouy])=Y_UW ^un=AH_N ull=UH_L u$=UW (?<=[gq])u(?=[aeiou])=W u=AH
^y=Y (?<=^[^aeiouy])y$=AY (?<=^[^aeiouy][^aeiouy])y$=AY (?<=^[^aeiouy][^aeiouy][^aeiouy])y$=AY
y(?=[aeou])=Y y(?=[^aeiouy]e)=AY fy$=F_AY y$=IY y=IH
b=B d=D f=F h(?=[aeiouy])=HH h= j=JH k=K l=L m=M n=N p=P r=R t=T v=V w(?=[aeiouyr])=W w= z=Z
"""
# Vowels as they are spelled: Spanish and most languages that are not English.
_PLAIN = r"""
ch=CH sh=SH ll=Y ny=N_Y qu(?=[ei])=K qu=K_W gu(?=[ei])=G g(?=[ei])=HH c(?=[ei])=S ph=F th=T ck=K
([bcdfgkmnprstvz])(?=\1)= ai=AY ay=AY au=AW ei=EY ey=EY oi=OY oy=OY ou=UW oo=UW
i(?=[aeou])=Y (?<=[^aeiou])u(?=[aeio])=W a=AA e=EH i=IY o=AO u=UW y(?=[aeiou])=Y y=IY
b=B c=K d=D f=F g=G h= j=HH k=K l=L m=M n=N p=P q=K r=R s=S t=T v=V w=W x=K_S z=S
"""
# What the letters from a to z are called.
_NAMES = (
    "EY,B IY,S IY,D IY,IY,EH F,JH IY,EY CH,AY,JH EY,K EY,EH L,EH M,EH N,OW,P IY,K Y UW,AA R,EH S,T IY,Y UW,"
    "V IY,D AH B AH L Y UW,EH K S,W AY,Z IY"
)


def sound_out(word: str, *, plain: bool = False) -> list[str]:
    """CMU phones of a lower-case word in the letters a to z; `plain` reads vowels as Spanish does."""
    phones: list[str] = []
    place = 0
    while place < len(word):
        pattern, sounds = next(rule for rule in _rules(plain) if rule[0].match(word, place))
        match = pattern.match(word, place)
        assert match is not None
        phones += sounds
        place = match.end()
    return phones


def spell_out(letters: str) -> list[str]:
    """CMU phones of an abbreviation, letter by letter."""
    names = dict(zip(string.ascii_lowercase, _NAMES.split(",")))
    return [phone for letter in letters for phone in names[letter].split()]


@lru_cache(maxsize=2)
def _rules(plain: bool) -> list[tuple[re.Pattern[str], list[str]]]:
    pairs = (rule.rpartition("=") for rule in (_PLAIN if plain else _ENGLISH).split())
    return [(re.compile(pattern), [p for p in phones.split("_") if p]) for pattern, _, phones in pairs]
