"""The crafts and interests of the synthetic world: what is made, of what, how, and where.

Each craft is one true interest; a district is a circle of crafts. Knows no people, no popularity
and no time: only words, and which crafts lie next to each other.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SAME_DISTRICT = 1.0
BRIDGE = 0.8
NEXT_DISTRICT = 0.15

Term = tuple[str, str]
"""One thing by its Chinese and its English name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Craft:
    """One interest, with the words that its items are made of."""

    key: str
    """The value of the `craft` column: an English slug."""
    name: Term
    district: str
    department: str
    """The shop department, the `category` column; departments cut across districts."""
    price: float
    """The median price of its products, CNY."""
    near: tuple[str, ...]
    """Keys of crafts in other districts that the same people tend to love."""
    places: tuple[str, ...]
    """Chinese names of places; titles.PLACES has their English names and cultures."""
    makes: tuple[Term, ...]
    materials: tuple[Term, ...]
    techniques: tuple[Term, ...]


# One block a district, `= key`. A craft is five lines: its head (`key | Chinese | English |
# department | median price | near`), places, what is made, of what, and how. A term is the
# Chinese word, a space, and the English.
_TABLE = """
= dress
hanfu | 汉服 | hanfu | apparel | 260 | velvet-flowers guqin
杭州 西安 曹县
马面裙 horse-face skirt; 褙子 beizi jacket; 圆领袍 round-collar robe; 披帛 shawl; 云肩 cloud collar
真丝 silk; 棉麻 cotton-linen; 香云纱 gambiered gauze; 妆花 zhuanghua brocade
打褶 hand pleating; 盘扣 frog fastening; 复原裁剪 period cutting; 平针缝 running stitch
indigo-dyeing | 蓝染 | indigo dyeing | apparel | 150 | paper-cutting camping
大理 黔东南 南通
围巾 scarf; 门帘 door curtain; 茶席布 tea cloth; 帆布包 tote bag; 衬衫 shirt
土布 homespun; 板蓝根 indigo leaf; 亚麻 linen; 老棉 old cotton
扎染 tie-dyeing; 蜡染 wax resist; 型染 stencil dyeing; 发酵建蓝 vat fermentation
suzhou-embroidery | 苏绣 | Suzhou embroidery | home | 680 | ink-painting
苏州 南京
团扇 round fan; 屏风 table screen; 绣片 embroidered panel; 胸针 brooch; 手包 clutch
蚕丝线 silk thread; 素绉缎 crepe satin; 金线 gold thread; 绢 silk gauze
双面绣 double-sided stitch; 劈丝 thread splitting; 乱针绣 random stitch; 打籽 seed stitch
velvet-flowers | 绒花 | velvet flowers | accessories | 120 | hanfu silver-smithing
南京 扬州 北京
发簪 hairpin; 发梳 hair comb; 耳坠 earrings; 胸花 corsage; 步摇 dangling pin
熟丝 boiled silk; 铜丝 copper wire; 珍珠 freshwater pearl; 缠花线 wrapping floss
勾条 wire brushing; 打尖 tip trimming; 传花 petal assembly; 烫绒 velvet ironing
brocade-weaving | 织锦 | brocade weaving | home | 420 | bamboo-weaving
南京 成都 黔东南
靠垫 cushion; 书衣 book cover; 腰带 sash; 挂毯 tapestry; 卡包 card holder
桑蚕丝 mulberry silk; 彩纬 coloured weft; 麻线 hemp yarn; 孔雀羽线 peacock thread
挖花 brocading; 提花 jacquard weaving; 通经断纬 kesi weaving; 挑花 pick-up weaving
= metal
silver-smithing | 银饰 | silver smithing | accessories | 320 | velvet-flowers leather-carving
黔东南 大理 凤凰
手镯 bangle; 项圈 torque; 耳环 ear hoops; 银壶 silver kettle; 戒指 ring
足银 fine silver; 老银 old silver; 苗银 Miao silver; 绿松石 turquoise
錾刻 chasing; 花丝 filigree; 一张打 single-sheet raising; 掐丝 wire cloisons
jade-carving | 玉雕 | jade carving | accessories | 900 | seal-carving
揭阳 南阳 和田
平安扣 donut pendant; 手把件 palm piece; 无事牌 plain plaque; 印章坯 seal blank; 茶则 tea scoop
和田玉 Hetian jade; 翡翠 jadeite; 独山玉 Dushan jade; 玛瑙 agate
俏色 colour carving; 薄胎 thin-body carving; 镂空 openwork; 手工抛光 hand polishing
cloisonne | 景泰蓝 | cloisonne | home | 480 | lacquer
北京 大厂
花瓶 vase; 香盒 incense box; 书签 bookmark; 壁挂 wall plate; 首饰盒 jewel box
紫铜 red copper; 矿物釉 mineral enamel; 银丝 silver wire; 铜胎 copper body
掐丝 wire bending; 点蓝 enamel filling; 磨光 stone polishing; 镀金 gilding
knife-forging | 锻刀 | knife forging | kitchen | 350 | camping wood-turning
阳江 龙泉 户撒
菜刀 cleaver; 小折刀 folding knife; 剪刀 scissors; 木工凿 chisel; 柴刀 billhook
夹钢 laminated steel; 大马士革钢 damascus steel; 高碳钢 carbon steel; 黄铜 brass
折叠锻打 fold forging; 覆土烧刃 clay tempering; 手工开刃 hand sharpening; 淬火 quenching
= wood
bamboo-weaving | 竹编 | bamboo weaving | home | 130 | indigo-dyeing gongfu-tea
安吉 青神 东阳
提篮 handled basket; 灯罩 lampshade; 茶滤 tea strainer; 竹扇 bamboo fan; 果盘 fruit tray
慈竹 ci bamboo; 毛竹 moso bamboo; 紫竹 black bamboo; 篾丝 split cane
破篾 cane splitting; 六角编 hexagon weave; 瓷胎编 porcelain-core weave; 收口 rim binding
wood-turning | 木旋 | wood turning | home | 160 | knife-forging pour-over-coffee
东阳 莆田 昆明
木碗 wooden bowl; 烛台 candlestick; 茶罐 tea caddy; 笔筒 pen pot; 陀螺 spinning top
黑胡桃 black walnut; 樱桃木 cherry; 老榆木 old elm; 香樟 camphor
车旋 lathe turning; 木蜡油 oil finishing; 树瘤剖制 burl cutting; 碗口修整 rim truing
lacquer | 大漆 | lacquer | home | 520 | cloisonne guqin
福州 扬州 平遥
茶盏 tea cup; 筷子 chopsticks; 食盒 food box; 手镯 bangle; 首饰盒 jewel box
生漆 raw lacquer; 螺钿 mother-of-pearl; 夏布 ramie cloth; 瓦灰 tile ash
脱胎 bodiless moulding; 犀皮 rhino-hide marbling; 推光 palm polishing; 金缮 gold repair
joinery | 榫卯 | joinery | home | 760 | miniatures
苏州 仙游 北京
茶凳 tea stool; 书架 bookshelf; 榫卯锁 joint puzzle; 笔架 brush stand; 小方桌 square table
白蜡木 ash wood; 花梨 rosewood; 榉木 beech; 老楠木 old nanmu
燕尾榫 dovetail joints; 粽角榫 corner joints; 手刨 hand planing; 烫蜡 hot waxing
= clay
porcelain | 瓷器 | porcelain | kitchen | 180 | gongfu-tea ink-painting
景德镇 德化 醴陵
品茗杯 tasting cup; 盖碗 gaiwan; 餐盘 dinner plate; 花器 vase; 公道杯 fair cup
高岭土 kaolin; 甜白釉 sweet white glaze; 青花料 cobalt blue; 影青 shadow-blue glaze
拉坯 wheel throwing; 青花手绘 cobalt painting; 薄胎修坯 thin trimming; 釉下彩 underglaze painting
yixing-teapots | 紫砂 | Yixing teapots | kitchen | 880 | puer-tea seal-carving
宜兴
西施壶 Xishi teapot; 石瓢壶 shipiao teapot; 紫砂杯 clay cup; 茶宠 tea pet; 壶承 pot stand
朱泥 zhu clay; 段泥 duan clay; 底槽清 dicaoqing clay; 紫泥 purple clay
全手工拍打 hand slabbing; 刻绘 clay engraving; 明针 burnishing; 柴烧 wood firing
celadon | 青瓷 | celadon | kitchen | 240 | incense
龙泉 上林湖
斗笠杯 conical cup; 香炉 incense burner; 鱼缸 fish bowl; 茶洗 tea basin; 笔洗 brush washer
梅子青釉 plum-green glaze; 粉青釉 powder-blue glaze; 紫金土 purple-gold clay; 铁胎 iron body
开片 crackling; 跳刀 chatter carving; 厚釉多次 layered glazing; 龙窑 dragon kiln firing
glass-blowing | 玻璃吹制 | glass blowing | home | 140 | houseplants
博山 上海
花瓶 vase; 威士忌杯 whisky glass; 风铃 wind chime; 灯 lamp; 水培瓶 propagation vase
琉璃 liuli glass; 高硼硅 borosilicate; 色料棒 coloured rod; 气泡玻璃 bubble glass
自由吹制 free blowing; 灯工 lampwork; 拉丝 thread pulling; 冷加工 cold working
= ink
calligraphy | 书法 | calligraphy | stationery | 90 | guqin
绍兴 宣城 湖州
毛笔 brush; 宣纸 xuan paper; 墨锭 ink stick; 字帖 copybook; 镇纸 paperweight
狼毫 weasel hair; 松烟 pine soot; 檀皮 sandalwood bark; 羊毫 goat hair
行书 running script; 楷书 regular script; 临帖 copying masters; 瘦金体 slender gold script
paper-cutting | 剪纸 | paper cutting | stationery | 45 | indigo-dyeing
蔚县 延安 佛山
窗花 window flower; 灯笼 lantern; 立体贺卡 pop-up card; 门笺 door banner; 装饰画 framed art
大红宣 red xuan paper; 万年红 wannian red paper; 彩宣 coloured paper; 铜衬纸 foil paper
阴刻 negative cutting; 折剪 folded cutting; 染色 dot dyeing; 套色 layered colour
seal-carving | 篆刻 | seal carving | stationery | 160 | jade-carving
杭州 青田 福州
闲章 motto seal; 姓名章 name seal; 印泥 seal paste; 刻刀 graver; 藏书章 bookplate seal
寿山石 Shoushan stone; 青田石 Qingtian stone; 巴林石 Balin stone; 铜坯 brass blank
朱文 relief cutting; 白文 intaglio cutting; 边款 side inscription; 布字 layout drawing
ink-painting | 国画 | ink painting | home | 210 | suzhou-embroidery bonsai
宣城 苏州 北京
扇面 fan painting; 山水小品 landscape; 颜料 pigment set; 册页 album; 花鸟画 bird-and-flower
矿物颜料 mineral pigment; 熟宣 sized paper; 绢本 silk ground; 花青 plant blue
工笔 fine brushwork; 没骨 boneless wash; 泼墨 splashed ink; 皴法 texture strokes
bookbinding | 手工书 | bookbinding | stationery | 85 | leather-carving
扬州 泾县 上海
线装本 stitched book; 手账 journal; 经折装 concertina book; 相册 album; 活页夹 binder
连史纸 lianshi paper; 洒金笺 gold-flecked paper; 布面 book cloth; 竹纸 bamboo paper
线装 thread binding; 科普特装 Coptic binding; 雕版印刷 woodblock printing; 书口染色 edge dyeing
= music
bamboo-flutes | 竹笛 | bamboo flutes | instruments | 240 | bamboo-weaving
杭州 玉屏
曲笛 qudi flute; 洞箫 xiao flute; 尺八 shakuhachi; 笛膜 flute membrane; 笛包 flute case
苦竹 bitter bamboo; 紫竹 black bamboo; 白竹 white bamboo; 芦苇膜 reed film
循环换气 circular breathing; 调音 tuning; 气震音 vibrato; 开孔 hole cutting
guqin | 古琴 | guqin | instruments | 1800 | hanfu incense
扬州 成都
仲尼琴 Zhongni guqin; 蕉叶琴 banana-leaf guqin; 琴弦 string set; 琴桌 qin table; 琴谱 score book
老杉木 old fir; 鹿角霜 deer-horn ash; 丝弦 silk string; 梓木 catalpa
斫琴 qin building; 减字谱 tablature reading; 吟猱 ornamented sliding; 泛音 harmonics
hand-drums | 手鼓 | hand drums | instruments | 320 | camping
丽江 拉萨 喀什
非洲鼓 djembe; 手碟 handpan; 卡林巴 kalimba; 空灵鼓 tongue drum; 铃鼓 tambourine
羊皮 goat skin; 氮化钢 nitrided steel; 桃花心木 mahogany; 相思木 koa
即兴 improvising; 手碟调音 handpan tuning; 基础节奏 basic grooves; 换鼓皮 reskinning
vinyl | 黑胶 | vinyl records | media | 210 | pour-over-coffee keyboards
上海 北京
唱片 record; 唱机 turntable; 唱针 stylus; 胶木唱头 bakelite cartridge; 唱片架 record rack
重盘 180-gram vinyl; 彩胶 coloured vinyl; 胡桃木 walnut; 首版 first pressing
清洗 wet cleaning; 校准 cartridge alignment; 淘碟 crate digging; 听感对比 listening test
= tea
puer-tea | 普洱 | pu'er tea | food | 190 | yixing-teapots
西双版纳 临沧
生茶饼 raw tea cake; 熟茶砖 ripe tea brick; 小青柑 mandarin pu'er; 龙珠 tea pearl; 老茶头 tea nugget
古树料 old-tree leaf; 春料 spring leaf; 大叶种 broad-leaf leaf; 陈料 aged leaf
石磨压制 stone pressing; 晒青 sun drying; 渥堆 pile fermenting; 撬茶 cake picking
gongfu-tea | 工夫茶 | gongfu tea | food | 130 | porcelain bamboo-weaving
潮州 武夷山 安溪
单丛 dancong oolong; 岩茶 rock oolong; 铁观音 Tieguanyin; 茶礼盒 tea gift box; 白茶 white tea
鸭屎香 duck-shit aroma leaf; 肉桂 cinnamon cultivar; 老枞 old-bush leaf; 明前芽 pre-Qingming bud
炭焙 charcoal roasting; 摇青 leaf tossing; 高冲低斟 high pouring; 闻香 aroma cupping
pour-over-coffee | 手冲咖啡 | pour-over coffee | food | 88 | wood-turning vinyl
保山 普洱 上海
咖啡豆 coffee beans; 挂耳 drip bags; 手冲壶 kettle; 磨豆机 grinder; 滤杯 dripper
日晒豆 natural-process bean; 水洗豆 washed bean; 卡蒂姆 Catimor; 铁皮卡 Typica
三段注水 three-stage pouring; 浅烘 light roasting; 杯测 cupping; 冰滴 cold dripping
rice-wine | 米酒 | rice wine | food | 75 | sichuan-sauces
绍兴 房县 黔东南
黄酒 yellow wine; 甜酒酿 sweet ferment; 酒曲 starter; 糯米酒 glutinous wine; 青梅酒 plum wine
糯米 glutinous rice; 红曲 red yeast rice; 鉴湖水 Jianhu water; 青梅 green plum
冬酿 winter brewing; 坛储 jar ageing; 古法蒸饭 rice steaming; 温酒 wine warming
= larder
mushrooms | 菌菇 | mushrooms | food | 68 | hiking
楚雄 香格里拉 庆元
干香菇 dried shiitake; 羊肚菌 morel; 松茸 matsutake; 菌菇汤包 broth pack; 鸡枞油 mushroom oil
野生菌 wild mushroom; 段木菌 log-grown mushroom; 头茬 first flush; 高山 highland harvest
采菌 foraging; 低温烘干 slow drying; 菌种培育 spawn growing; 炭火煎 charcoal searing
sichuan-sauces | 川味酱 | Sichuan sauces | food | 36 | rice-wine
郫县 自贡 汉源
豆瓣酱 broad-bean paste; 红油 chili oil; 藤椒油 green-pepper oil; 火锅底料 hotpot base; 泡菜 pickles
二荆条 erjingtiao chili; 贡椒 tribute peppercorn; 蚕豆 broad bean; 菜籽油 rapeseed oil
翻晒露 sun-and-dew ageing; 现舂 hand pounding; 炼油 oil tempering; 坛泡 jar pickling
honey | 蜂蜜 | honey | food | 78 | hiking houseplants
神农架 秦岭 长白山
土蜂蜜 wild honey; 巢蜜 comb honey; 椴树蜜 linden honey; 蜂蜡 beeswax; 蜂蜜酒 mead
百花 mixed bloom; 荆条花 chaste-tree bloom; 崖蜜 cliff comb; 野桂花 wild osmanthus
割蜜 comb cutting; 老桶养蜂 log-hive keeping; 结晶 creaming; 看封盖 cap checking
sourdough | 酸种面包 | sourdough | food | 52 | pour-over-coffee
上海 成都 哈尔滨
乡村面包 country loaf; 贝果 bagel; 大列巴 Russian loaf; 发酵篮 proofing basket; 法棍 baguette
全麦 whole wheat; 黑麦 rye; 天然酵种 wild starter; 石磨粉 stone-ground flour
折叠 stretch and fold; 割包 scoring; 冷藏发酵 cold proofing; 养种 starter feeding
cured-ham | 火腿腊味 | cured ham | food | 120 | mushrooms
宣威 金华 恩施
火腿 ham; 腊肉 bacon; 香肠 sausage; 风干牛肉 dried beef; 火腿片 ham slices
黑猪 black pig; 乌金猪 Wujin pig; 柏枝 cypress smoke; 井盐 well salt
三年窖藏 three-year ageing; 柴火熏 wood smoking; 手工抹盐 hand salting; 开刀 leg carving
= wild
camping | 露营 | camping | outdoors | 280 | hand-drums pour-over-coffee
安吉 香格里拉 阿坝
天幕 tarp; 帐篷 tent; 焚火台 fire pit; 蛋卷桌 roll-top table; 营灯 lantern
钛 titanium; 棉帆布 cotton canvas; 胡桃木 walnut; 涂硅尼龙 silnylon
搭天幕 tarp pitching; 轻量化 ultralight packing; 生火 fire making; 雨天扎营 rain camping
fishing-lures | 路亚 | lure fishing | outdoors | 95 | wood-turning
千岛湖 威海 查干湖
米诺 minnow lure; 软虫 soft worm; 路亚竿 rod; 亮片 spoon lure; 水滴轮 baitcaster reel
巴沙木 balsa; 碳素 carbon; 钨钢 tungsten; 手绘涂层 hand-painted finish
抽停 twitching; 手工做饵 lure carving; 跳底 bottom hopping; 精准抛投 accurate casting
hiking | 徒步 | hiking | outdoors | 360 | mushrooms honey
阿坝 秦岭 武功山
登山鞋 boots; 背包 pack; 登山杖 poles; 冲锋衣 shell jacket; 速干衣 base layer
碳纤维 carbon fibre; 羊毛 merino; 防水膜 waterproof membrane; 高弹泡棉 foam
路线规划 route planning; 减负装包 pack trimming; 高反应对 altitude care; 轻装穿越 fast traverse
stargazing | 观星 | stargazing | outdoors | 620 | ink-painting keyboards
阿里 冷湖 兴隆
折射镜 refractor; 双筒镜 binoculars; 星图 star chart; 赤道仪 tracking mount; 滤镜 filter
低色散镜片 ED glass; 铝合金 aluminium; 夜光墨 glow ink; 窄带膜 narrowband coating
深空摄影 deep-sky imaging; 极轴校准 polar alignment; 星轨叠加 star-trail stacking; 目视 sketching
= home
cat-furniture | 猫家具 | cat furniture | pets | 210 | joinery bamboo-weaving
曹县 上海 台州
猫爬架 cat tree; 猫抓板 scratcher; 猫窝 cat bed; 太空舱 window pod; 逗猫棒 teaser wand
剑麻 sisal; 桦木 birch; 瓦楞纸 corrugated board; 藤 rattan
墙面安装 wall mounting; 缠麻绳 sisal wrapping; 改造旧家具 furniture hacking; 稳固测试 wobble testing
aquascaping | 水草造景 | aquascaping | pets | 160 | bonsai glass-blowing
广州 厦门
超白缸 clear tank; 沉木 driftwood; 水草 aquatic plants; 青龙石 seiryu stone; 生态瓶 jar ecosystem
莫斯 moss; 矮珍珠 dwarf pearlweed; 水草泥 aqua soil; 火山石 lava stone
开缸 tank cycling; 骨架搭建 hardscaping; 除藻 algae control; 对剪 trimming
bonsai | 盆景 | bonsai | garden | 330 | ink-painting celadon
扬州 如皋 广州
黑松 black pine; 榔榆 elm; 微型盆景 mini bonsai; 紫砂盆 clay pot; 整枝剪 pruning shears
山采桩 wild stump; 苔藓 moss; 铝线 wire; 赤玉土 akadama
蟠扎 wiring; 改作 restyling; 上盆 potting; 摘芽 bud pinching
houseplants | 绿植 | houseplants | garden | 65 | honey glass-blowing
昆明 漳州 广州
龟背竹 monstera; 秋海棠 begonia; 空气凤梨 air plant; 兰花 orchid; 自吸盆 self-watering pot
锦化苗 variegated cutting; 水苔 sphagnum; 椰壳 coco husk; 陶粒 clay pebbles
扦插 propagation; 换盆 repotting; 爬藤 pole training; 除虫 pest control
incense | 香道 | incense | home | 140 | guqin celadon
莆田 东莞 苏州
线香 incense stick; 香牌 scent plaque; 篆香模 incense seal mould; 香囊 sachet; 盘香 incense coil
沉香 agarwood; 老山檀 sandalwood; 艾草 mugwort; 鹅梨帐中方 pear-and-agarwood blend
合香 incense blending; 打篆 seal stamping; 隔火熏 mica warming; 手搓 hand rolling
= making
leather-carving | 皮雕 | leather carving | accessories | 260 | silver-smithing bookbinding
广州 呼和浩特
钱包 wallet; 皮带 belt; 马鞍包 saddle bag; 笔记本套 journal cover; 钥匙扣 key fob
植鞣革 veg-tan leather; 马臀皮 cordovan; 牛皮 cowhide; 蜡线 waxed thread
唐草雕刻 Sheridan carving; 手缝 saddle stitching; 封边 edge burnishing; 染色 hand dyeing
miniatures | 微缩模型 | miniatures | toys | 150 | joinery
深圳 上海
娃娃屋 dollhouse; 场景台 diorama; 迷你家具 tiny furniture; 高达 model robot; 军模 scale tank
椴木片 basswood; 树脂 resin; 蚀刻片 photo-etch; 黏土 polymer clay
旧化 weathering; 喷涂 airbrushing; 分色 masking; 灯光改造 LED lighting
knitting | 编织 | knitting | apparel | 70 | cat-furniture
桐乡 鄂尔多斯 上海
毛衣 jumper; 毛线团 yarn ball; 钩针包 crochet bag; 围脖 cowl; 玩偶 doll
羊绒 cashmere; 美利奴 merino; 冰丝 ice silk; 段染线 hand-dyed yarn
费尔岛 Fair Isle; 绞花 cabling; 钩针 crochet; 一片式 seamless knitting
keyboards | 客制化键盘 | custom keyboards | electronics | 420 | vinyl
深圳 东莞
键帽 keycap set; 轴体 switches; 铝坨坨 aluminium kit; 手托 wrist rest; 线材 coiled cable
PBT PBT plastic; 黄铜 brass; 树脂 resin; 碳纤 carbon fibre
润轴 switch lubing; 热升华 dye sublimation; 声音调校 sound tuning; 飞线 hand wiring
fountain-pens | 钢笔 | fountain pens | stationery | 230 | calligraphy
上海 杭州
钢笔 fountain pen; 墨水 ink; 笔尖 nib; 笔袋 pen roll; 玻璃笔 glass pen
硬橡胶 ebonite; 赛璐珞 celluloid; 14K金 14k gold; 古铜 bronze
磨尖 nib grinding; 调水 flow tuning; 练字 handwriting; 试色 ink swatching
"""


def _terms(line: str) -> tuple[Term, ...]:
    pairs = (term.split(" ", 1) for term in line.split("; "))
    return tuple((zh, en) for zh, en in pairs)


@cache
def crafts() -> tuple[Craft, ...]:
    """Every craft, in the order that numbers the true interests."""
    found: list[Craft] = []
    district = ""
    lines = iter(_TABLE.strip().splitlines())
    for line in lines:
        if line.startswith("= "):
            district = line[2:]
            continue
        key, zh, en, department, price, near = line.split(" | ")
        found.append(
            Craft(
                key=key,
                name=(zh, en),
                district=district,
                department=department,
                price=float(price),
                near=tuple(near.split()),
                places=tuple(next(lines).split()),
                makes=_terms(next(lines)),
                materials=_terms(next(lines)),
                techniques=_terms(next(lines)),
            )
        )
    return tuple(found)


@cache
def adjacency() -> NDArray[np.float64]:
    """How near each craft is to each other: [K, K] float64, symmetric, 0 on the diagonal.

    1 within a district, 0.8 where one names the other as near, 0.15 between the districts that
    follow each other (in a ring), else 0.
    """
    all_crafts = crafts()
    districts = list(dict.fromkeys(craft.district for craft in all_crafts))
    place = np.array([districts.index(craft.district) for craft in all_crafts])
    steps = np.abs(place[:, None] - place[None, :])
    steps = np.minimum(steps, len(districts) - steps)
    weights = np.where(steps == 0, SAME_DISTRICT, np.where(steps == 1, NEXT_DISTRICT, 0.0))
    rows = {craft.key: row for row, craft in enumerate(all_crafts)}
    for row, craft in enumerate(all_crafts):
        for key in craft.near:
            weights[row, rows[key]] = weights[rows[key], row] = max(BRIDGE, weights[row, rows[key]])
    np.fill_diagonal(weights, 0.0)
    weights.flags.writeable = False
    return weights
