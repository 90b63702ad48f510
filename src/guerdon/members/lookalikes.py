"""Letters that look like Latin letters. Two addresses that look the same must not belong to two members.

From the confusables of Unicode (UTS 39): every letter whose prototype is one Latin letter, after normalization and case folding. ASCII
characters are not replaced, since people have addresses with `1` and with `l`.
"""

# ruff: noqa: RUF001 - this table consists of letters that look like others

LIKE = {
    "a": "ɑαаᎪᗅꓮ𐊠𖽀",
    "b": "ᏏᏴᑲᖯᗷꓐ𐊂𐊡𐌁",
    "c": "сᏟᴄⲥꓚ𐊢𐌂𐐽𐔜",
    "d": "ԁᎠᏧᑯᗞᗪꓒꓓ",
    "e": "еҽᎬⴹꓰꬲ𐊆",
    "f": "քᖴẝꓝꞙꬵ𐊇𐊥𐔥𑣂",
    "g": "ƍɡցᏀᏳᶃꓖ",
    "h": "һհᎻᏂᕼꓧ𐋏",
    "i": "ıɩɪιіӏᎥꙇ𑣃",
    "j": "ϳјᎫᒍꓙ",
    "k": "Ꮶᛕꓗ𐔘",
    "l": "ǀᏞᒪᛁⵏꓡꓲ𐊊𐌉𐔦𖼖𖼨",
    "m": "Ꮇᗰᛖꓟ𐊰𐌑",
    "n": "ոռꓠ𐔓",
    "o": "οσоօଠഠဝჿዐᴏᴑⲟⵔꓳꬽ𐊒𐊫𐐬𐓪𐔖𑣈𑣗",
    "p": "ρрᏢᑭⲣꓑ𐊕",
    "q": "ԛգզⵕ",
    "r": "гᎡᏒᖇᴦⲅꓣꭇꭈ𖼵",
    "s": "ƽѕᏕᏚꓢꜱ𐊖𐑈𑣁𖼺",
    "t": "Ꭲꓔ𐊗𐊱𐌕𖼊",
    "u": "ʋυսሀᑌᴜꓴꞟꭎꭒ𐓶𑣘𖽂",
    "v": "νѵᏙᐯᴠⴸꓦꛟ𐔝𑜆𑣀𖼈",
    "w": "ɯѡԝաᎳᏔᴡꓪ𑜊𑜎𑜏",
    "x": "хᕁᕽᚷⵝꓫ𐊐𐊴𐌗𐔧",
    "y": "ɣʏγуүყᎩᎽᶌỿꓬꭚ𐊲𑣜𖽃",
    "z": "Ꮓᴢꓜ𑣄",
}
LOOKALIKES = str.maketrans({letter: latin for latin, letters in LIKE.items() for letter in letters})
"""Table for `str.translate`."""
