"""Names and titles of the synthetic world, in Chinese and English: places, creators, item titles.

Knows how a title is worded; which craft, maker and materials an item has is decided elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from training.world.crafts import Craft, Term

T = TypeVar("T")

# Chinese name of a place, its English name, its culture region.
_PLACES = """
苏州 Suzhou jiangnan; 杭州 Hangzhou jiangnan; 南京 Nanjing jiangnan; 扬州 Yangzhou jiangnan;
南通 Nantong jiangnan; 如皋 Rugao jiangnan; 宜兴 Yixing jiangnan; 湖州 Huzhou jiangnan;
绍兴 Shaoxing jiangnan; 桐乡 Tongxiang jiangnan; 安吉 Anji jiangnan; 上海 Shanghai jiangnan;
东阳 Dongyang zhejiang-hills; 龙泉 Longquan zhejiang-hills; 青田 Qingtian zhejiang-hills;
庆元 Qingyuan zhejiang-hills; 金华 Jinhua zhejiang-hills; 台州 Taizhou zhejiang-hills;
上林湖 Shanglin-Lake zhejiang-hills; 千岛湖 Qiandao-Lake zhejiang-hills;
福州 Fuzhou minnan; 德化 Dehua minnan; 仙游 Xianyou minnan; 莆田 Putian minnan;
武夷山 Wuyishan minnan; 安溪 Anxi minnan; 厦门 Xiamen minnan; 漳州 Zhangzhou minnan;
广州 Guangzhou lingnan; 佛山 Foshan lingnan; 东莞 Dongguan lingnan; 深圳 Shenzhen lingnan;
揭阳 Jieyang lingnan; 潮州 Chaozhou lingnan; 阳江 Yangjiang lingnan;
成都 Chengdu bashu; 自贡 Zigong bashu; 郫县 Pixian bashu; 汉源 Hanyuan bashu; 青神 Qingshen bashu;
阿坝 Aba tibetan; 拉萨 Lhasa tibetan; 阿里 Ngari tibetan; 香格里拉 Shangri-La tibetan;
大理 Dali yunnan; 丽江 Lijiang yunnan; 昆明 Kunming yunnan; 普洱 Pu'er yunnan; 楚雄 Chuxiong yunnan;
西双版纳 Xishuangbanna yunnan; 临沧 Lincang yunnan; 保山 Baoshan yunnan; 宣威 Xuanwei yunnan;
户撒 Husa yunnan; 黔东南 Qiandongnan miao-dong; 凤凰 Fenghuang miao-dong; 玉屏 Yuping miao-dong;
恩施 Enshi jingchu; 神农架 Shennongjia jingchu; 房县 Fangxian jingchu; 景德镇 Jingdezhen gan-hui;
醴陵 Liling gan-hui; 武功山 Wugong-Mountain gan-hui; 宣城 Xuancheng gan-hui; 泾县 Jingxian gan-hui;
北京 Beijing northern; 大厂 Dachang northern; 兴隆 Xinglong northern; 蔚县 Yuxian northern;
博山 Boshan northern; 威海 Weihai northern; 曹县 Caoxian northern; 南阳 Nanyang central-plains;
平遥 Pingyao central-plains; 西安 Xi'an central-plains; 延安 Yan'an central-plains;
秦岭 Qinling central-plains; 哈尔滨 Harbin northeast; 长白山 Changbai-Mountain northeast;
查干湖 Chagan-Lake northeast; 呼和浩特 Hohhot steppe-and-desert; 鄂尔多斯 Ordos steppe-and-desert;
和田 Hotan steppe-and-desert; 喀什 Kashgar steppe-and-desert; 冷湖 Lenghu steppe-and-desert
"""


class Place(NamedTuple):
    """A place where things are made."""

    english: str
    culture: str


def _places() -> dict[str, Place]:
    rows = (row.split() for row in _PLACES.strip().split(";"))
    return {zh: Place(english.replace("-Lake", " Lake").replace("-Mountain", " Mountain"), culture)
            for zh, english, culture in rows}  # fmt: skip


PLACES: Mapping[str, Place] = _places()

_SURNAMES = (
    "周 Zhou;吴 Wu;陈 Chen;林 Lin;杨 Yang;李 Li;沈 Shen;顾 Gu;龙 Long;潘 Pan;何 He;马 Ma;罗 Luo;"
    "许 Xu;蒋 Jiang;黎 Li;欧阳 Ouyang;段 Duan;石 Shi;白 Bai;秦 Qin;严 Yan;谢 Xie;董 Dong"
)
_GIVEN = (
    "素云 Suyun;阿朵 A'duo;守拙 Shouzhuo;小满 Xiaoman;青山 Qingshan;若水 Ruoshui;怀瑾 Huaijin;"
    "明远 Mingyuan;春生 Chunsheng;静之 Jingzhi;听雨 Tingyu;木石 Mushi;知秋 Zhiqiu;大山 Dashan;"
    "念慈 Nianci;子衿 Zijin;阿蓝 Alan;一舟 Yizhou;晚晴 Wanqing;大勇 Dayong;思源 Siyuan;"
    "谷雨 Guyu;长庚 Changgeng;云起 Yunqi"
)
# Worded around the full name {n}, the surname {s}, the place {p} and the craft {c}.
_STUDIOS: tuple[Term, ...] = (
    ("{n}·{c}工坊", "{n} {c} Workshop"),
    ("{p}{s}师傅做{c}", "Master {s} of {p}, {c}"),
    ("{s}家{c}", "The {s} Family {c}"),
    ("{n}的{c}日记", "{n}'s {c} Diary"),
    ("{p}{c}·{n}", "{p} {c}, {n}"),
    ("{n}爱{c}", "{n} Loves {c}"),
    ("在{p}做{c}的{n}", "{n}, {c} in {p}"),
    ("{c}铺子·{n}", "{c} Shop, {n}"),
)
_EPITHETS: tuple[Term, ...] = (
    ("手作", "handmade"), ("小众", "small-batch"), ("日常款", "everyday"), ("限量", "limited"),
    ("入门", "beginner's"), ("收藏级", "collector's"), ("送礼", "gift"), ("复古", "vintage-style"),
    ("素雅", "plain"), ("迷你", "mini"), ("老师傅", "old master's"), ("春日", "spring"),
)  # fmt: skip

# {p} place, {m} material, {t} technique, {o} object, {e} epithet, {c} craft, {d} the second craft,
# {n} creator, {s} surname, {x} a number.
_TITLES: Mapping[str, tuple[Term, ...]] = {
    "product": (
        ("{p}{e}{m}{o}·{t}", "{p} {e} {m} {o}, {t}"),
        ("{e}{t}{o} {m} {x}号", "{e} {o} in {m}, {t}, No. {x}"),
        ("{s}师傅{m}{o}（{t}）", "Master {s}'s {m} {o} ({t})"),
        ("{p}{c} {m}{o} 第{x}批", "{p} {c}: {m} {o}, batch {x}"),
        ("{m}{e}{o} {p}直发", "{e} {m} {o}, shipped from {p}"),
        ("{t}工艺{m}{o} {e}第{x}款", "{t} {o} of {m}, {e} style {x}"),
    ),
    "video": (
        ("跟{s}师傅学{t}，做一件{m}{o}", "Learning {t} with Master {s}: a {m} {o}"),
        ("在{p}花{x}天，只为这件{o}", "{x} days in {p} for one {o}"),
        (
            "{m}是怎么变成{o}的？{t}全过程",
            "How {m} becomes a {o}: {t} from start to end",
        ),
        ("{c}新手第{x}天：{t}翻车了", "{c}, day {x}: my {t} went wrong"),
        ("{p}的清晨，{s}家开始{t}", "Morning in {p}: the {s} family starts {t}"),
        (
            "别再买错{o}！{m}好坏一分钟分清",
            "Stop buying the wrong {o}: telling good {m} in a minute",
        ),
        ("沉浸式{t}｜{m}{o} 第{x}集", "Just {t}, no talking: {m} {o}, episode {x}"),
        ("开箱{p}{m}{o}，{e}值不值", "Unboxing a {e} {m} {o} from {p}"),
    ),
    "blend": (
        ("当{c}遇上{d}：{m}{o}", "When {c} meets {d}: a {m} {o}"),
        ("{d}爱好者的第一件{o}｜{t}", "A first {o} for {d} lovers: {t}"),
        ("{c}+{d}，{p}的{x}个周末", "{c} and {d}: {x} weekends in {p}"),
        ("把{d}带进{c}，{s}师傅这样做{o}", "{d} inside {c}: Master {s} makes a {o}"),
    ),
    "live": (
        ("{p}{c}源头直播：{m}{o}专场", "Live from {p}: {c}, {m} {o} special"),
        ("{s}师傅现场{t}，边做边聊", "Master {s} live: {t} and talk"),
        ("{n}今晚开窑开箱 {o}{x}件", "{n} tonight: {x} pieces, {o}"),
        ("{c}夜话第{x}期：{t}", "{c} night talk {x}: {t}"),
    ),
    "article": (
        ("{c}入门：怎样挑{m}{o}", "{c} for beginners: choosing a {m} {o}"),
        ("{p}{c}小史与{t}", "A short history of {p} {c} and {t}"),
        (
            "{x}件{o}对比：{m}真的更好吗",
            "{x} {o} pieces compared: is {m} really better?",
        ),
        ("{t}笔记（{x}）：{s}师傅说", "Notes on {t} ({x}): what Master {s} says"),
        ("一篇讲透{m}：从{p}到{o}", "All about {m}: from {p} to the {o}"),
    ),
}


class Creator(NamedTuple):
    """Who makes an item, as far as its titles say."""

    name: Term
    surname: Term


def name_creator(craft: Craft, place: str, *, rng: np.random.Generator) -> tuple[Creator, Term]:
    """A person, and the title (Chinese, English) of the creator item that is theirs."""
    surname = _pick(_SURNAMES.split(";"), rng).split(" ")
    given = _pick(_GIVEN.split(";"), rng).split(" ")
    creator = Creator((surname[0] + given[0], f"{given[1]} {surname[1]}"), (surname[0], surname[1]))
    zh, en = _pick(_STUDIOS, rng)
    title = (
        zh.format(n=creator.name[0], s=surname[0], p=place, c=craft.name[0]),
        en.format(
            n=creator.name[1],
            s=surname[1],
            p=PLACES[place].english,
            c=_capital(craft.name[1]),
        ),
    )
    return creator, title


def title_item(
    kind: str,
    craft: Craft,
    *,
    make: int,
    material: int,
    technique: int,
    place: str,
    creator: Creator,
    second: Craft | None,
    rng: np.random.Generator,
) -> Term:
    """The title (Chinese, English) of a product, video, live room or article.

    make, material, technique: positions in the craft's words. second: the other craft that the
    item blends in; half of such items say so in the title.
    """
    blended = second is not None and kind != "product" and rng.random() < 0.5
    zh, en = _pick(_TITLES["blend" if blended else kind], rng)
    epithet = _pick(_EPITHETS, rng)
    number = int(rng.integers(2, 60))
    words = [
        {
            "p": place if language == 0 else PLACES[place].english,
            "m": craft.materials[material][language],
            "t": craft.techniques[technique][language],
            "o": craft.makes[make][language],
            "e": epithet[language],
            "c": craft.name[language],
            "d": second.name[language] if second is not None else "",
            "n": creator.name[language],
            "s": creator.surname[language],
            "x": number,
        }
        for language in (0, 1)
    ]
    return zh.format(**words[0]), _capital(en.format(**words[1]))


def price_band(price: float) -> str:
    """The `price_band` column of a product that costs `price` CNY."""
    bounds = (50, 150, 400, 1000)
    names = ("under-50", "50-150", "150-400", "400-1000", "over-1000")
    return names[sum(price >= bound for bound in bounds)]


def round_price(price: float) -> float:
    """A price as shops write it: whole yuan ending in 8 or 9 above 20 CNY."""
    if price < 20:
        return max(3.0, round(price * 2) / 2)
    step = 10 ** max(1, math.floor(math.log10(price)) - 1)
    return float(max(20, round(price / step) * step) - (1 if step == 10 else 2))


def _pick(values: Sequence[T], rng: np.random.Generator) -> T:
    return values[int(rng.integers(len(values)))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
